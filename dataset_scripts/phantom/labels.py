"""The truth about a study in the columns of REFLACX, CheXpert and the EGD master sheet."""

from dataset_scripts.phantom.findings import KINDS, LABELS, Finding
from dataset_scripts.phantom.session import Mark

PHASE_1_LABELS = (
    "Airway wall thickening", "Atelectasis", "Consolidation", "Emphysema", "Enlarged cardiac silhouette", "Fibrosis",
    "Fracture", "Groundglass opacity", "Mass", "Nodule", "Other", "Pleural effusion", "Pleural thickening",
    "Pneumothorax", "Pulmonary edema", "Quality issue", "Support devices", "Wide mediastinum",
)  # fmt: skip
PHASE_3_LABELS = tuple(sorted((*LABELS, "Other")))
PHASE_LABELS = {1: PHASE_1_LABELS, 2: PHASE_3_LABELS, 3: PHASE_3_LABELS}
ALL_PHASES_LABELS = PHASE_1_LABELS + tuple(label for label in PHASE_3_LABELS if label not in PHASE_1_LABELS)
_PHASE_1_NAMES = {
    "nodule": "Nodule",
    "pleural effusion": "Pleural effusion",
    "pleural thickening": "Pleural thickening",
    "interstitial disease": "Fibrosis",
    "enlarged hilum": "Other",
    "bullae": "Emphysema",
    "hiatal hernia": "Other",
    "widened mediastinum": "Wide mediastinum",
    "rib fracture": "Fracture",
}

CHEXPERT_LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
_CHEXPERT_KINDS = {
    "Atelectasis": {"atelectasis"},
    "Cardiomegaly": {"enlarged heart"},
    "Consolidation": {"consolidation"},
    "Edema": {"pulmonary edema"},
    "Enlarged Cardiomediastinum": {"widened mediastinum"},
    "Fracture": {"rib fracture"},
    "Lung Lesion": {"nodule"},
    "Lung Opacity": {"consolidation", "groundglass opacity", "atelectasis"},
    "Pleural Effusion": {"pleural effusion"},
    "Pleural Other": {"pleural thickening"},
    "Pneumothorax": {"pneumothorax"},
    "Support Devices": {name for name, kind in KINDS.items() if kind.label == "Support devices"},
}
_ALWAYS_STATED = {"Cardiomegaly", "Consolidation", "Edema", "No Finding", "Pleural Effusion", "Pneumothorax"}

MASTER_SHEET_KINDS = {
    "consolidation": {"consolidation"},
    "enlarged_cardiac_silhouette": {"enlarged heart"},
    "linear__patchy_atelectasis": {"atelectasis"},
    "lobar__segmental_collapse": set[str](),
    "not_otherwise_specified_opacity___pleural__parenchymal_opacity__": {"nodule", "groundglass opacity"},
    "pleural_effusion_or_thickening": {"pleural effusion", "pleural thickening"},
    "pulmonary_edema__hazy_opacity": {"pulmonary edema"},
    "normal_anatomically": set[str](),
    "elevated_hemidiaphragm": set[str](),
    "hyperaeration": {"bullae"},
    "vascular_redistribution": set[str](),
}


def kinds_of(findings: tuple[Finding, ...]) -> set[str]:
    """The kinds that are present."""
    return {finding.kind for finding in findings}


def chexpert_values(findings: tuple[Finding, ...]) -> list[str]:
    """1.0, 0.0, -1.0 or blank (absent, not spoken of) for each of CHEXPERT_LABELS."""
    present = kinds_of(findings)
    return [_chexpert_value(label, present) for label in CHEXPERT_LABELS]


def _chexpert_value(label: str, present: set[str]) -> str:
    if label == "Pneumonia":
        return "-1.0" if "consolidation" in present else ""
    found = not present - _CHEXPERT_KINDS["Support Devices"]
    if label != "No Finding":
        found = bool(_CHEXPERT_KINDS[label] & present)
    return "1.0" if found else "0.0" if label in _ALWAYS_STATED else ""


def phase_label(finding: Finding, phase: int) -> str:
    """The name of a finding in a phase of REFLACX; the phases 2 and 3 have the same names."""
    return _PHASE_1_NAMES.get(finding.kind, finding.label) if phase == 1 else finding.label


def reflacx_values(marks: tuple[Mark, ...], labels: tuple[str, ...], phase: int) -> list[str]:
    """Certainty 0 to 5 for each of `labels`; True or False for two of them, text for `Other`, blank in other phases."""
    certainty = {phase_label(mark.finding, phase): mark.certainty for mark in marks}
    others = dict.fromkeys(mark.finding.kind for mark in marks if phase_label(mark.finding, phase) == "Other")
    return [_reflacx_value(label, certainty, others, phase) for label in labels]


def _reflacx_value(label: str, certainty: dict[str, int], others: dict[str, None], phase: int) -> str:
    if label not in PHASE_LABELS[phase]:
        return ""
    if label == "Other":
        return "|".join(others)
    if label in ("Support devices", "Quality issue"):
        return str(label in certainty)
    return str(certainty.get(label, 0))


def master_sheet_values(findings: tuple[Finding, ...]) -> list[str]:
    """0 or 1: Normal, CHF, pneumonia (at most one of them 1), then the columns of MASTER_SHEET_KINDS."""
    present = kinds_of(findings)
    pneumonia = "consolidation" in present
    failure = not pneumonia and bool(present & {"pulmonary edema", "enlarged heart"})
    values = [not present, failure, pneumonia]
    for column, kinds in MASTER_SHEET_KINDS.items():
        values.append(not present if column == "normal_anatomically" else bool(kinds & present))
    return [str(int(value)) for value in values]
