# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What rbu answered: its document, or the error of a task."""

from __future__ import annotations

import json


class Answer:
    """What rbu said: its exit code, and its JSON document."""

    def __init__(self, rc, document):
        self.rc = rc
        self.document = document

    @property
    def error(self):
        return self.document.get("error")


class RbuError(Exception):
    """A task that failed: the text for people, and the rest of the result."""

    def __init__(self, msg, **result):
        super().__init__(msg)
        self.result = {"msg": msg, **result}


def parse_answer(words, rc, out, err):
    """The `Answer` in what a process of rbu printed.

    Raises RbuError where that is no JSON document: rbu is another program, or crashed.
    """
    try:
        document = json.loads(out)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        last = (err.strip().splitlines() or ["it printed nothing"])[-1]
        raise RbuError("rbu %s gave no answer: %s" % (words[0], last), rc=rc, stderr=err)
    return Answer(rc, document)


def checked(answer, **more):
    """`answer`, or RbuError for one that is an error."""
    error = answer.error
    if error is None and answer.rc == 0:
        return answer
    error = error or {"kind": "unknown", "message": "rbu ended with %s" % answer.rc}
    raise RbuError(
        error["message"], rc=answer.rc, error=error, obstacles=obstacles(answer.document), **more
    )


def obstacles(document):
    """The names of what prevents an update: in a plan, or in the plan within an answer."""
    plan = document.get("plan", document)
    return [each["kind"] for each in plan.get("obstacles", [])]
