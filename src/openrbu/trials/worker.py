"""The process of one trial: `python -m openrbu.trials.worker DIRECTORY`.

It reads `order.json` in the directory and writes `report.json` there. Its output is the tool's. A
process of its own, because `run.programs` forks, and wants no threads then.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from openrbu.errors import OpenRbuError
from openrbu.lazy import use_one_blas_thread
from openrbu.system.files import write_whole
from openrbu.system.processes import adopt_descendants, end_descendants
from openrbu.trials.deadline import Deadline, GivenUpError
from openrbu.trials.records import Failure, Order, Report
from openrbu.trials.trial import perform
from openrbu.trials.trial_files import ORDER, REPORT
from openrbu.typed_json import read, to_text

EXIT_GIVEN_UP = 1


def main(directory: Path) -> int:
    """Do the trial; the exit code, which is 0 when there is a report."""
    use_one_blas_thread()
    adopt_descendants()
    order = read(Order, json.loads((directory / ORDER).read_text()))
    deadline = Deadline(order.parent)
    try:
        report = Report(perform(order, directory, deadline), None)
    except OpenRbuError as error:
        report = Report(None, Failure(error.kind, int(error.exit_code), str(error)))
    except GivenUpError:
        end_descendants()
        if order.removes and os.getppid() != order.parent:  # nobody else does it
            shutil.rmtree(directory.parent, ignore_errors=True)
        return EXIT_GIVEN_UP
    finally:
        end_descendants()
    write_whole(directory / REPORT, to_text(report).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
