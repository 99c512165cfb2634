"""What explains a run that is through: `analysis.json`, `report.html` and the model's card, the last that it writes."""

from typing import TYPE_CHECKING

from tlx.core.activity import doing
from tlx.runs import model_card, page_analysis, report_page
from tlx.runs.small_pictures import of_sets

if TYPE_CHECKING:
    from tlx.features.feature_cache import FeatureCache
    from tlx.runs.prepare import Job
    from tlx.runs.run_recorder import Record
    from tlx.training.metrics import Scores


def write(record: "Record", job: "Job", features: "FeatureCache", scores: "Scores") -> str:
    """Writes them; what is missing if the user has interrupted it, in words: the run has finished all the same.

    What else goes wrong is a warning.
    """
    data = job.data
    try:
        with record.clock.part("pictures"), doing("writing the page"):
            with report_page.spared("analysis.json"):
                page_analysis.analyse(record, job, features, scores)
            with report_page.spared(report_page.FILE):
                report_page.write(
                    record.folder,
                    of_sets([data.test, data.train, data.val, *([job.unknown] if job.unknown is not None else [])]),
                )
            with report_page.spared(f"model/{model_card.FILE}"):
                model_card.write(record.folder)
    except KeyboardInterrupt:
        return f"{record.folder} has all of the run but its page: python -m tlx report {record.folder} makes it"
    return ""
