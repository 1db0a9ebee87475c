"""The sections of a report, against what MIMIC-CXR's own parser makes of their names."""

import re

import pytest

from dataset_scripts.clinical_reports import description, report_sentences, section_name
from dataset_scripts.report import Ledger

# the official names and sections, as facts
OFFICIAL = {
    "findings": "findings; chest, two views; finding; findins; findindgs; findgings; findngs; findnings; finidngs;"
    "reference findings; additional findings; chest; portable ap; pa and lateral; lateral and pa; ap and lateral;"
    "lateral and ap; frontal and lateral; two views; frontal view; pa view; ap view; one view; lateral view; ribs;"
    "bone window; frontal upright; frontal semi-upright; pa and lat; portable chest radiograph; chest (pa and lat)",
    "impression": "impression; conclusion; findings and impression; findings/impression; findings/ impression;"
    "ndication; impresson; imprression; imoression; impressoin; imprssion; impresion; imperssion; mpression;"
    "impession; provisional findings impression (pfi); impression and recommendation",
    "comparison": "comparison; comparisons; reference exam; comparison exam; comparison film; comparision; comparsion;"
    "comparrison; comparisions; chest comparison; comparison chest radiograph",
    "history": "history; clinical history; clinical information; patient history; pfi; history of chest pain",
    "indication": "indication; reason for examination; reason for exam; clinical indication; idication",
    "examination": "examination; exam; type of examination",
    "technique": "technique",
    "notification": "notification",
    "recommendations": "recommendations; recommendation; recommendation(s)",
    "addendum": "addendum; addendum to chest",
    "wet read": "wet read; wetread",
    "date": "date",
    "comment": "comment",
}
NAMES = [(name.strip(), section) for section, names in OFFICIAL.items() for name in names.split(";")]


@pytest.mark.parametrize(("name", "section"), NAMES)
def test_every_official_name_is_its_official_section(name, section):
    assert section_name(name.upper()) == section


@pytest.mark.parametrize(("name", "section"), NAMES)
def test_text_below_every_official_name_is_kept_where_it_is_findings_or_impression(name, section):
    kept = section in ("findings", "impression")
    report = f"        FINAL REPORT\n {name.upper()}:  The lungs are clear.\n \n FINDINGS:  F.\n \n IMPRESSION:  I.\n"
    assert description(report).text == "The lungs are clear.\n\n" * kept + "F.\n\nI."
    alone = description(f"        FINAL REPORT\n {name.upper()}:  The lungs are clear.\n").text
    assert alone == "The lungs are clear." * (kept or section == "comparison")


@pytest.mark.parametrize(
    ("report", "text", "section"),
    [
        (" IMPRESSION: One.\n\n FINDINGS:\n Two.\n", "One. Two.", "findings_and_impression"),
        (" FINDINGS:\n\n IMPRESSION: Only this.", "Only this.", "findings_and_impression"),
        (" FINDINGS:\n IMPRESSION: Adjacent headings.", "Adjacent headings.", "findings_and_impression"),
        (" IMPRSSION: Misspelt.", "Misspelt.", "findings_and_impression"),
        (" FINDINGS AND IMPRESSION: Both.", "Both.", "findings_and_impression"),
        (" FINDINGS & IMPRESSION: Both.", "Both.", "findings_and_impression"),
        (" Findings:\n Clear.\n\n Impression: Fine.", "Clear. Fine.", "findings_and_impression"),
        (" findings and impression: Both.", "Both.", "findings_and_impression"),
        (" Clinical history: Cough.\n Frontal and lateral views of the chest: Clear.", "Clear.",
         "findings_and_impression"),
        ("   IMPRESSION:\tIndented.", "Indented.", "findings_and_impression"),
        (" IMPRESSION:No blank.", "No blank.", "findings_and_impression"),
        (" IMPRESSION:1. Edema.", "1. Edema.", "findings_and_impression"),
        (" INDICATION: Cough.\n FINDINGS\n Clear.\n IMPRESSION\n Fine.", "Clear. Fine.", "findings_and_impression"),
        (" CHEST, PA LAT:\n INDICATION: Cough.\n\n FINDINGS: Clear.", "Clear.", "findings_and_impression"),
        (" CHEST, 2 VIEWS, ___:  Clear.\n\n No effusion.", "Clear. No effusion.", "findings_and_impression"),
        (" AP CHEST, 5:30 A.M., ___:  Clear at 6:30.\n", "Clear at 6:30.", "findings_and_impression"),
        (" FINDINGS:\n LUNGS:  Clear.\n HEART AND MEDIASTINUM:  Normal.\n OTHER: Clips.\n IMPRESSION: Fine.",
         "LUNGS: Clear. HEART AND MEDIASTINUM: Normal. OTHER: Clips. Fine.", "findings_and_impression"),
        (" HISTORY: Cough.\n Lungs: Clear.\n Bones: Intact.", "Lungs: Clear. Bones: Intact.",
         "findings_and_impression"),
        (" FINDINGS: Clear.\n There is this to say: nothing.\n Note: it is clear.",
         "Clear. There is this to say: nothing. Note: it is clear.", "findings_and_impression"),
        (" FINDINGS: Clear.\n NOTIFICATIONS: Dr. ___ was called.\n RECOMMENDATION: Follow up.", "Clear.",
         "findings_and_impression"),
        (" CLINICAL SUMMARY: Cough.\n\n SUMMARY: Clear.", "Clear.", "findings_and_impression"),
        (" REASON FOR PORTABLE CHEST: Cough.\n\n CONCLUSIONS: Clear.", "Clear.", "findings_and_impression"),
        (" WET READ: ___ ___ 8:48 PM\n  No pneumonia.\n ______________\n FINAL REPORT\n FINDINGS: Clear.", "Clear.",
         "findings_and_impression"),
        (" INDICATION: Cough.\n\n Lungs clear.\n\n No effusion.", "Lungs clear. No effusion.", "last_paragraph"),
        (" Comparison is made.\n\n Lungs are clear.\n ______________\n", "Lungs are clear.", "last_paragraph"),
        (" FINAL REPORT\n \n Lungs are clear.\n \n No effusion.", "Lungs are clear. No effusion.", "last_paragraph"),
        (" FINAL REPORT\n PA CHEST.\n \n Lungs are clear.\n \n No effusion.", "Lungs are clear. No effusion.",
         "last_paragraph"),
        (" HISTORY: Cough.\n COMPARISON: Old.\n\n Clear.", "Clear.", "last_paragraph"),
        (" COMPARISON: Unchanged since ___.", "Unchanged since ___.", "comparison"),
        (" COMPARISON: First.\n COMPARISON: Last.\n NOTIFICATION: None.", "Last.", "comparison"),
        (" FINAL REPORT\n Lungs clear", "Lungs clear", "first_paragraph"),
        (" FINAL REPORT\n The lungs are clear.\n NOTIFICATION: Called.", "The lungs are clear.", "first_paragraph"),
        (" FINAL REPORT\n INDICATION: Cough.", "", "nothing"),
        (" ADDENDUM: Called.\n IMPRESSION: Later.\n ___________________\n FINAL REPORT\n IMPRESSION: First.",
         "First.", "findings_and_impression"),
        (" FINDINGS: Above.\n ___________________\n IMPRESSION: Below.", "Above. Below.", "findings_and_impression"),
        (" FINDINGS: Clear.\r\n\r\n IMPRESSION: Fine.\r\n", "Clear. Fine.", "findings_and_impression"),
        ("", "", "nothing"),
    ],
)  # fmt: skip
def test_sections(report, text, section):
    found = description(report)
    assert (re.sub(r"\s+", " ", found.text), found.section) == (text, section)


@pytest.mark.parametrize(
    ("report", "note"),
    [
        (" FINAL REPORT\n The lungs are clear.\n\n IMPRESSION: Fine.", "text_before_first_heading_left_out"),
        (" FINAL REPORT\n The lungs are clear.\n \n No effusion.", "text_before_first_heading_left_out"),
        (" FINAL REPORT\n PA AND LATERAL CHEST, ___\n\n IMPRESSION: Fine.", None),
        (" FINAL REPORT\n The lungs are clear.", "text_from_first_paragraph"),
        (" COMPARISON: The same.", "text_from_comparison"),
    ],
)
def test_what_is_left_out_or_stands_in_is_noted(report, note):
    ledger = Ledger()
    assert report_sentences(report, None, "s5", ledger)
    assert ({note} if note else set()) <= set(ledger.notes)
    assert note or not ledger.notes
    assert all(found.first[0].startswith("s5") for found in ledger.notes.values())


def test_studies_that_the_official_lists_set_by_hand():
    report = " INDICATION: Cough.\n RECOMMENDATIONS: Lungs are clear.\n IMPRESSION: Dr. ___ was called.\n"
    assert description(report, "50913680") == ("Lungs are clear.", "place_set_by_hand", "")
    assert description(report, "50913681").text == "Dr. ___ was called."
    assert description("x" * 201 + "Clear." + " " * 142 + "y" * 50, "50525523").text == "Clear."
    assert description(report, "58235663") == ("", "nothing", "")
