"""What is known about each cohort: source, endpoint, covariates, counts and known problems.

The cards hold facts; the readers in :mod:`tumorbench_utils.cohorts.released` hold the rules that
make a table of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


class CohortError(ValueError):
    """A cohort table, mask or image that is not what it should be: file, row and column named."""


@dataclass(frozen=True)
class CohortCard:
    """The facts about one cohort.

    Parameters
    ----------
    key, title : str
        Name in :data:`COHORTS` and name on the page; the rest may be left empty by a cohort of
        your own.
    organ, endpoint : str
        Body part and what is predicted.
    label_rule : str
        The exact rule of ``label``.
    positive : str
        What label 1 means; empty for a cohort without endpoint.
    source, doi : str
        Where the images come from, and the DOI of the data.
    licence, access : str
        Licence of the images and how to get them.
    image_format : str
        Format of the images that the published benchmark read.
    covariates : mapping of str to str
        Columns of the released table beyond those that every cohort has, and their unit or coding.
    size_column : str or None
        The ruler: column that holds a size. ``size_mm`` is always in millimetres; a size in any
        other unit has another name.
    size_direction : {1, -1}
        1 if a larger size speaks for label 1, -1 if it speaks against it; also where the released
        table has no size but the phantom twin has.
    clinical_column : str or None
        The clinical score: a covariate that a clinician has without an image model.
    clinical_direction : {1, -1}
        As `size_direction`.
    exclusions : mapping of str to str
        Lesions of the released table that are left out, and why.
    expected : mapping of str to int
        Counts of the released table, exclusions not yet made: ``rows``, ``scans``, ``patients``,
        ``label_0``, ``label_1``, ``label_missing``, the same three with ``reference_`` for the
        published label, ``used_in_reference``, for survival cohorts ``events`` and, where rows
        were dropped before the release, ``rated``: how many there were.
    citation : str
        Key in the bibliography.
    known_problems : tuple of str
        What is known to be wrong or weak in the released table.
    """

    key: str
    title: str
    organ: str = ""
    endpoint: str = ""
    label_rule: str = ""
    positive: str = ""
    source: str = ""
    doi: str = ""
    licence: str = ""
    access: str = ""
    image_format: str = ""
    covariates: Mapping[str, str] = field(default_factory=dict)
    size_column: str | None = None
    size_direction: int = 1
    clinical_column: str | None = None
    clinical_direction: int = 1
    exclusions: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)
    citation: str = ""
    known_problems: tuple[str, ...] = ()

    @property
    def has_survival(self) -> bool:
        """Whether the released table holds times to death."""
        return "events" in self.expected


_IDC = "NCI Imaging Data Commons, no registration"

LUNA16 = CohortCard(
    key="luna16",
    title="LUNA16",
    organ="lung",
    endpoint="malignancy of a nodule as rated by radiologists",
    label_rule=(
        "mean malignancy rating (1 to 5) of the LIDC readers, at least three of them, rounded half "
        "to even; 1 and 2 give 0, 4 and 5 give 1; a mean of 3 is dropped"
    ),
    positive="rated malignant",
    source="LUNA16 challenge, a selection from LIDC-IDRI",
    doi="10.5281/zenodo.3723295",
    licence="CC BY 4.0 (LIDC-IDRI: CC BY 3.0)",
    access="Zenodo records 3723295 (subsets 0-6) and 4121926 (subsets 7-9), no registration",
    image_format=".mhd",
    covariates={
        "size_px": "larger side of the readers' in-plane bounding box, pixels (not millimetres)",
        "bbox_rows": "pixels",
        "bbox_cols": "pixels",
        "bbox_slices": "slices",
        "malignancy_rating": "rounded mean rating, 1 to 5: the label itself, no covariate",
        "spiculation": "rounded mean rating, 1 to 5",
        "lobulation": "rounded mean rating, 1 to 5",
    },
    size_column="size_px",
    size_direction=1,
    expected={
        "rated": 1185,
        "rows": 677,
        "scans": 433,
        "patients": 433,
        "label_0": 350,
        "label_1": 327,
        "label_missing": 0,
        "reference_0": 350,
        "reference_1": 327,
        "reference_missing": 0,
        "used_in_reference": 677,
    },
    citation="setio2017",
    known_problems=(
        "the label is an opinion of radiologists who saw the image, not a histological diagnosis",
        "nodules with a mean rating of 3, the hard ones, were dropped: 508 of 1185",
        "patients are unknown: the series stands in for the patient",
        "scans shared by the stored parts: 61 train/val, 53 train/test, 37 val/test",
        "53 scans hold lesions of both labels",
        "the released table holds no size; the readers' boxes are in pixels of unknown spacing",
        "a part of LIDC-IDRI, on which several of the models were pre-trained",
    ),
)

DLCS = CohortCard(
    key="dlcs",
    title="DLCS",
    organ="lung",
    endpoint="lung cancer in a screening participant",
    label_rule="`Malignant_lbl` of the data set; the same for all nodules of a patient",
    positive="patient with lung cancer",
    source="Duke Lung Cancer Screening Dataset 2024",
    doi="10.5281/zenodo.13799069",
    licence="Creative Commons, non-commercial; the Zenodo record states the version",
    access="Zenodo record 13799069",
    image_format=".nii.gz",
    covariates={
        "size_mm": "longest side of the annotated box, mm",
        "size_x_mm": "side of the box, mm",
        "size_y_mm": "side of the box, mm",
        "size_z_mm": "side of the box, mm",
        "duplicate_of": "lesion of which the row is an exact copy",
    },
    size_column="size_mm",
    size_direction=1,
    expected={
        "rows": 2487,
        "scans": 1613,
        "patients": 1613,
        "label_0": 2223,
        "label_1": 264,
        "label_missing": 0,
        "reference_0": 2223,
        "reference_1": 264,
        "reference_missing": 0,
        "used_in_reference": 1714,
    },
    citation="wang2025dlcs",
    known_problems=(
        "the label belongs to the patient: every nodule of a patient carries the same one",
        "the published benchmark used patients 1 to 1120 only, and never the official test part",
        "six rows are exact copies of another row (listed in `duplicate_of`)",
        "the box of DLCS_1045_01 is 119 mm long",
    ),
)

NSCLC_RADIOMICS = CohortCard(
    key="nsclc_radiomics",
    title="NSCLC-Radiomics",
    organ="lung",
    endpoint="survival of two years",
    label_rule="1 if followed for more than 730 days; 0 if dead before; else missing",
    positive="alive at two years",
    source="NSCLC-Radiomics (Lung1), Maastricht",
    doi="10.7937/K9/TCIA.2015.PF0M9REI",
    licence="CC BY-NC 3.0",
    access=_IDC,
    image_format=".nrrd",
    covariates={
        "age": "years",
        "sex": "female, male",
        "stage": "overall clinical stage: I, II, IIIa, IIIb",
        "t_stage": "1 to 4",
        "n_stage": "0 to 3",
        "m_stage": "0 or 1",
        "histology": "as recorded",
    },
    size_direction=-1,
    clinical_column="stage",
    clinical_direction=-1,
    expected={
        "rows": 421,
        "scans": 421,
        "patients": 421,
        "label_0": 251,
        "label_1": 169,
        "label_missing": 1,
        "reference_0": 252,
        "reference_1": 169,
        "reference_missing": 0,
        "used_in_reference": 421,
        "events": 373,
    },
    citation="aerts2014",
    known_problems=(
        "LUNG1-406 was lost to follow-up at 314 days but is labelled dead: missing here",
        "LUNG1-128 is absent",
        "codes outside their scale (T5, N4, M3) and one M1 beside a stage of at most IIIb",
        "missing: age 22, histology 42, overall stage 1, T stage 1",
        "the effect of stage changes over time (no proportional hazards)",
    ),
)

NSCLC_RADIOGENOMICS = CohortCard(
    key="nsclc_radiogenomics",
    title="NSCLC-Radiogenomics",
    organ="lung",
    endpoint="survival of two years",
    label_rule="1 if followed for 730 days or more; 0 if dead before; else missing",
    positive="alive at two years",
    source="NSCLC Radiogenomics, Stanford and Palo Alto VA",
    doi="10.7937/K9/TCIA.2017.7hs46erv",
    licence="CC BY 3.0",
    access=_IDC,
    image_format=".nrrd",
    covariates={
        "age": "years at diagnosis",
        "sex": "female, male",
        "stage": "pathological stage group of TNM 7, worked out from T, N and M",
        "t_stage": "pathological",
        "n_stage": "pathological",
        "m_stage": "pathological",
        "histology": "as recorded",
        "grade": "as recorded",
        "smoking": "as recorded",
        "egfr": "Mutant, Wildtype or missing",
        "kras": "Mutant, Wildtype or missing",
        "days_ct_to_surgery": "days",
    },
    size_direction=-1,
    clinical_column="stage",
    clinical_direction=-1,
    exclusions={"R01-038": "the seed lies at the origin of the coordinates, outside the tumour"},
    expected={
        "rows": 144,
        "scans": 144,
        "patients": 144,
        "label_0": 28,
        "label_1": 105,
        "label_missing": 11,
        "reference_0": 51,
        "reference_1": 93,
        "reference_missing": 0,
        "used_in_reference": 144,
        "events": 51,
    },
    citation="bakr2018",
    known_problems=(
        "the published label is alive at last contact, whenever that was, not two-year survival",
        "R01-038 has its seed at the origin of the coordinates: left out",
        "R01-106 died 14 days after its CT, which may have been taken after surgery",
        "15 of 51 dates of death disagree with the recorded times",
        "the masks are called Heart or Tissue; their seeds lie on the side of the tumour in 143 of "
        "144",
    ),
)

C4KC_KITS = CohortCard(
    key="c4kc_kits",
    title="C4KC-KiTS",
    organ="kidney",
    endpoint="survival of two years",
    label_rule="1 if followed for 730 days or more; 0 if dead before; else missing",
    positive="alive at two years",
    source="C4KC-KiTS (KiTS19), Minnesota",
    doi="10.7937/TCIA.2019.IX49E8NX",
    licence="CC BY 3.0",
    access=_IDC,
    image_format=".nii.gz",
    covariates={
        "size_mm": "radiographic size, mm (released in cm)",
        "pathologic_size_mm": "size of the specimen, mm (known after surgery only)",
        "age": "years at nephrectomy",
        "sex": "female, male",
        "stage": "pathological T stage",
        "histology": "as recorded",
        "malignant": "whether the tumour was malignant",
        "isup_grade": "1 to 4",
        "bmi": "kg/m2",
        "smoking": "as recorded",
        "manufacturer": "of the scanner",
    },
    size_column="size_mm",
    size_direction=-1,
    clinical_column="stage",
    clinical_direction=-1,
    expected={
        "rows": 210,
        "scans": 210,
        "patients": 210,
        "label_0": 16,
        "label_1": 118,
        "label_missing": 76,
        "reference_0": 16,
        "reference_1": 118,
        "reference_missing": 76,
        "used_in_reference": 134,
        "events": 21,
    },
    citation="heller2019",
    known_problems=(
        "16 labelled deaths: a test set of the published protocol holds five",
        "18 tumours are benign, 10 of them labelled",
        "ages 1, 11, 12 and 17 years among adults",
        "KiTS-00025, KiTS-00158 and KiTS-00185 have a follow-up of 0 days",
        "76 patients were lost to follow-up before two years and have no label",
        "whether a seed marks the tumour or the kidney cannot be proved from the table",
    ),
)

COLORECTAL_LIVER_METASTASES = CohortCard(
    key="colorectal_liver_metastases",
    title="Colorectal-Liver-Metastases",
    organ="liver",
    endpoint="survival of two years",
    label_rule="1 if followed for 24 months or more; 0 if dead before; else missing",
    positive="alive at two years",
    source="Colorectal-Liver-Metastases, Memorial Sloan Kettering",
    doi="10.7937/QXK2-QG03",
    licence="CC BY 4.0",
    access=_IDC,
    image_format=".nii.gz",
    covariates={
        "size_mm": "largest metastasis, mm (released in cm)",
        "age": "years",
        "sex": "female, male (coding 1 = male, 2 = female is assumed)",
        "bmi": "kg/m2",
        "clinrisk_score": "clinical risk score, 0 to 5",
        "carcinoembryonic_antigen": "ng/mL",
        "node_positive_primary": "0 or 1",
        "synchronous_crlm": "0 or 1",
        "multiple_metastases": "0 or 1",
        "bilobar_disease": "0 or 1",
        "extrahep_disease": "0 or 1",
        "chemo_before_liver_resection": "0 or 1",
        "dfs_days": "days to progression, recurrence, death or last contact",
        "dfs_event": "1 = progression, recurrence or death",
        "n_masks": "number of tumour masks",
        "manufacturer": "of the scanner",
    },
    size_column="size_mm",
    size_direction=-1,
    clinical_column="clinrisk_score",
    clinical_direction=-1,
    expected={
        "rows": 197,
        "scans": 197,
        "patients": 197,
        "label_0": 18,
        "label_1": 176,
        "label_missing": 3,
        "reference_0": 18,
        "reference_1": 176,
        "reference_missing": 3,
        "used_in_reference": 194,
        "events": 107,
    },
    citation="simpson2024",
    known_problems=(
        "18 labelled deaths: a test set of the published protocol holds five",
        "missing values are coded -999 (risk score and CEA: 29 each)",
        "a size of 0 beside a mask: CRLM-CT-1004 and CRLM-CT-1027",
        "CRLM-CT-1074 was scanned lying on the stomach",
        "one seed per patient although up to 35 masks exist (CRLM-CT-1070)",
        "the coding of sex is assumed",
    ),
)

RIDER_LUNG_CT = CohortCard(
    key="rider_lung_ct",
    title="RIDER Lung CT",
    organ="lung",
    endpoint="none: test-retest repeatability",
    label_rule="no label: 26 patients scanned twice within minutes",
    positive="",
    source="RIDER Lung CT, Memorial Sloan Kettering",
    doi="10.7937/k9/tcia.2015.u1x8a5nr",
    licence="CC BY 4.0",
    access=_IDC,
    image_format=".nrrd",
    covariates={"session": "test or retest"},
    expected={
        "rows": 52,
        "scans": 52,
        "patients": 26,
        "label_0": 0,
        "label_1": 0,
        "label_missing": 52,
        "reference_0": 0,
        "reference_1": 0,
        "reference_missing": 52,
        "used_in_reference": 52,
    },
    citation="zhao2009",
    known_problems=(
        "26 of the 32 patients of the collection are in the released table",
        "each scan was segmented on its own: a difference between seeds is part of the measurement",
    ),
)

#: Cards by key, in the order of the book. :func:`tumorbench_utils.cohorts.register` adds to it.
COHORTS: dict[str, CohortCard] = {
    card.key: card
    for card in (
        LUNA16,
        DLCS,
        NSCLC_RADIOMICS,
        NSCLC_RADIOGENOMICS,
        C4KC_KITS,
        COLORECTAL_LIVER_METASTASES,
        RIDER_LUNG_CT,
    )
}
