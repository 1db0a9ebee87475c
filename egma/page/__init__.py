"""The page of `app.py`: views of what a model finds, and what stands between them and untrusted input."""

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

# Gradio reads it when it is imported, and makes folders there; none of them is there when the process has ended
UPLOADS = Path(tempfile.gettempdir()) / f"egma-page-{secrets.token_hex(8)}"
os.environ["GRADIO_TEMP_DIR"] = str(UPLOADS)
atexit.register(shutil.rmtree, UPLOADS, ignore_errors=True)
