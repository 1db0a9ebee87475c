"""A dictation -> the words that `python -m dataset_scripts.build tracker` reads, with their times.

    python examples/transcribe.py dictation.wav speech/case_7_anna.json [MODEL]

MODEL: any Whisper (openai/whisper-large-v3), or one with CTC (google/medasr, facebook/wav2vec2-base-960h).
"""

import json
import sys
from pathlib import Path

from transformers import pipeline
from transformers.pipelines.audio_utils import ffmpeg_read

from dataset_scripts.command_line import run_example


def main(audio: str, output: str, model: str = "openai/whisper-small") -> None:
    recognise = pipeline("automatic-speech-recognition", model=model)
    rate = recognise.feature_extractor.sampling_rate
    sound = ffmpeg_read(Path(audio).read_bytes(), rate)  # needs the program ffmpeg
    long = {"chunk_length_s": 20, "stride_length_s": 2} if recognise.type.startswith("ctc") else {}
    said = recognise({"raw": sound, "sampling_rate": rate}, return_timestamps="word", **long)
    told = {"model": model, "duration": len(sound) / rate, "text": said["text"], "chunks": said["chunks"]}
    Path(output).write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    print(f"{output}: {len(said['chunks'])} words in {len(sound) / rate:.1f} s; read them before you train")


if __name__ == "__main__":
    sys.exit(run_example(main, __doc__))
