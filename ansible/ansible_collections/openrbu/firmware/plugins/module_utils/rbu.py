# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What the modules do, whoever runs rbu for them: the host's own command, or openrbu right here.

A runner is a function ``run(words, password=None)`` that runs ``rbu WORDS`` for the machine and
returns an `Answer`. The functions below take one and return the result of a module, or raise
`RbuError`.
"""

from __future__ import annotations

from ansible_collections.openrbu.firmware.plugins.module_utils.answers import (
    RbuError,
    checked,
    obstacles,
)

COMMON_OPTIONS = {
    "executable": {"type": "str", "default": "rbu"},
}

PASSWORD_OPTIONS = {
    "password": {"type": "str", "no_log": True},
}

ARM_FLAGS = ("without_password", "mend_cmos", "allow_any_restart")

UPDATE_FLAGS = (
    "reinstall",
    "allow_downgrade",
    "allow_any_system",
    "allow_known_broken",
    "memory_above_4g",
    "drop_caches",
    *ARM_FLAGS,
)


def _flags(names):
    # Said one by one, because a name with "password" in it looks like a secret to Ansible.
    return {name: {"type": "bool", "default": False, "no_log": False} for name in names}


UPDATE_OPTIONS = {
    "image": {"type": "path", "required": True},
    "policy": {"type": "path"},
    "mode": {"type": "str", "choices": ["auto", "mono", "packet"], "default": "auto"},
    "packet_size": {"type": "str"},
    "driver": {"type": "str", "choices": ["auto", "kernel", "own"], "default": "auto"},
    "retry_failed": {"type": "bool", "default": True},
    **_flags(UPDATE_FLAGS),
    **PASSWORD_OPTIONS,
    **COMMON_OPTIONS,
}

ARM_OPTIONS = {
    "policy": {"type": "path"},
    **_flags(ARM_FLAGS),
    **PASSWORD_OPTIONS,
    **COMMON_OPTIONS,
}

CANCEL_OPTIONS = {**PASSWORD_OPTIONS, **COMMON_OPTIONS}

INFO_OPTIONS = {
    "image": {"type": "path"},
    "policy": {"type": "path"},
    **COMMON_OPTIONS,
}


def update_words(params):
    """The words after `rbu update` or `rbu plan` that a module's parameters stand for."""
    words = [params["image"]]
    for name in ("policy", "mode", "packet_size", "driver"):
        if params.get(name) not in (None, "auto"):
            words += ["--" + name.replace("_", "-"), params[name]]
    return words + flag_words(params, UPDATE_FLAGS)


def flag_words(params, names):
    return ["--" + name.replace("_", "-") for name in names if params.get(name)]


# -- facts ----------------------------------------------------------------------------------


def status(run):
    return checked(run(["status"])).document


def facts(document, plan=None):
    """What a playbook decides by, from `rbu status`, and from `rbu plan` where there is one."""
    last = document["last_update"] or {}
    machine, bios, completion = document["machine"], document["bios"], document["completion"]
    return {
        "vendor": machine["vendor"],
        "product": machine["product"],
        "system_id": machine["system_id"],
        "hardware_revision": machine["hardware_revision"],
        "version": bios["version"],
        "release_date": bios["release_date"],
        "driver": document["driver"],
        "module_is_loaded": document["module_is_loaded"],
        "state": document.get("state"),
        "is_armed": document["is_armed"],
        "is_staged": bool(document["staged_size_bytes"]),
        "staged_version": document["staged_version"],
        "next_restart": document["next_restart"],
        "restart_mode": document["restart_mode"],
        "boot_id": document["boot"]["id"],
        "completion_code": completion and completion["code"],
        "completion_meaning": completion and completion["meaning"],
        "last_outcome": last.get("outcome"),
        "last_succeeded": last.get("succeeded"),
        "last_sha256": last.get("sha256"),
        "update_is_needed": plan and plan.get("is_needed"),
        "obstacles": None if plan is None else obstacles(plan),
        "modes": document.get("modes"),  # none of an older rbu
        "memory_view": document.get("memory_view"),
        "lockdown": document.get("lockdown"),
    }


def bios_info(run, params):
    document = status(run)
    plan = None
    if params.get("image"):
        answer = run(["plan", *update_words(params)])
        if "checks" not in answer.document:  # no plan at all: no image, or the policy is done
            checked(answer)
        plan = answer.document
    answers = {"status": document}
    if plan is not None:
        answers["plan"] = plan
    return {"changed": False, "bios": facts(document, plan), "answers": answers}


# -- updates --------------------------------------------------------------------------------


def _is_refused(plan):
    """Whether the policy does not want this image on the machine, at any time."""
    return not {"policy", "policy_image"}.isdisjoint(obstacles(plan))


def _is_pending(document, plan):
    """Whether the machine is armed for this very image, and nothing has come between."""
    last = document["last_update"] or {}
    return (
        document["is_armed"] is True
        and not _is_refused(plan)
        and document["next_restart"] == "updates"
        and last.get("outcome") == "armed"
        and last.get("sha256") == plan["image"]["sha256"]
    )


def _is_staged(document, plan):
    """Whether this very image is staged and verified, and not armed."""
    last = document["last_update"] or {}
    is_same = last.get("sha256") == plan["image"]["sha256"]
    return document.get("state") == "staged" and is_same and not _is_refused(plan)


def _is_as_asked(params, planned):
    """Whether what is staged of this image need not be compared with what is asked for: that costs
    an update. It is where nothing is asked for that may differ: a password, a mode, packets.

    It is, too, where all that stands in the way is in that of staging: such as too little memory,
    because of what is staged. That makes it no worse; a wrong password does, or a policy.
    """
    differing = [
        params.get(name) not in (None, "auto") for name in ("password", "mode", "packet_size")
    ]
    if planned.rc == 0 and not any(differing):
        return True
    plan = planned.document
    hinders = {
        each["question"]
        for each in plan["checks"]
        if each["verdict"] == "in_the_way" and each["name"] != "policy_window"
    }
    return hinders == {"staging"}


def _has_failed(document, plan):
    """Whether the BIOS had this very image, and did not install it."""
    last = document["last_update"] or {}
    return (
        last.get("outcome") == "result"
        and last.get("succeeded") is False
        and last.get("sha256") == plan["image"]["sha256"]
    )


def _how_it_failed(document):
    completion = document["completion"]
    return "the BIOS says %(code)s, %(meaning)s" % completion if completion else "no record of it"


def _diff(document, plan, after):
    """What changes, in the words of `rbu status`."""

    def text(version, restart):
        return "BIOS: %s\nnext restart: %s\n" % (version, restart)

    before = document["next_restart"] if document else "changes_nothing"
    version = plan["current_version"]
    return {
        "before_header": "machine",
        "after_header": "machine",
        "before": text(version, before),
        "after": text(version, after % plan["new_version"]),
    }


def bios_update(run, params, check_mode=False):
    """Stage, verify and arm, unless the machine runs or is armed for this image."""
    return _bring(run, params, check_mode, (), "updates to %s")


def bios_stage(run, params, check_mode=False):
    """Stage and verify, unless the machine runs this image, or has it staged or armed."""
    return _bring(run, params, check_mode, ("--no-arm",), "changes_nothing (%s is staged)")


def _pinned(plan):
    """Why the policy leaves the machine of a plan alone, if it does."""
    return (plan.get("policy") or {}).get("pinned")


def _check_policy(plan, planned, answers):
    """Raises RbuError for a machine whose system is known, and not to the policy."""
    policy = plan.get("policy")
    is_known = policy is None or policy["target"] is not None
    if not planned.error or is_known or plan["machine"]["system_id"] is None:
        return
    text = "the policy says nothing of system %s" % plan["machine"]["system_id"]
    error = {"kind": "not_in_policy", "message": text, "exit_code": planned.rc}
    raise RbuError(text, rc=planned.rc, error=error, answers=answers)


def _may_have_failed(plan):
    """Whether the last update may be one that failed, by a plan that may have no checks."""
    checks = plan.get("checks")
    return checks is None or any(
        each["name"] == "last_update" and each["verdict"] != "fine" for each in checks
    )


def _up_to_date(run, params, plan, answers, text):
    """The result for a machine that runs what is wanted. Raises RbuError where the BIOS has
    installed that, and reported a failure, unless retry_failed says that this does not count."""
    done = {"state": "up_to_date", "msg": text}
    document = status(run) if _may_have_failed(plan) else {}
    last = document.get("last_update") or {}
    has_failed = last.get("outcome") == "result" and last.get("succeeded") is False
    if not has_failed or last.get("to_version") != plan["current_version"]:
        return done
    answers["status"] = document
    text = "%s, but its update has failed: %s" % (text, _how_it_failed(document))
    if params["retry_failed"]:
        return {**done, "msg": text, "warnings": [text]}
    error = {"kind": "failed_before", "message": text, "exit_code": 1}
    raise RbuError(text, rc=1, error=error, answers=answers)


def _done_by_policy(run, params, planned, answers):
    """The result for a machine that the policy wants nothing of any more; None: it does, or there
    is none. Raises RbuError where there is no image for another reason."""
    plan = planned.document
    _check_policy(plan, planned, answers)
    if planned.error and _pinned(plan):
        return _left_alone(run, plan, answers)
    if "image" in plan:
        return None
    checked(planned, answers=answers)
    text = "%s is what the policy wants" % plan["current_version"]
    return _up_to_date(run, params, plan, answers, text)


def _left_alone(run, plan, answers):
    """What is said of a machine that the policy has pinned."""
    document = answers["status"] = status(run)
    done = {"state": "pinned", "msg": "pinned by the policy: %s" % _pinned(plan)}
    if document["is_armed"]:
        done["msg"] += "; it is armed, and the next restart updates it (bios_cancel)"
        done["warnings"] = [done["msg"]]
    return done


def _bring(run, params, check_mode, how, after):
    words = update_words(params)
    password = params.get("password")
    planned = run(["plan", *words], password)
    plan = planned.document
    result = {"changed": False, "answers": {"plan": plan}}
    done = _done_by_policy(run, params, planned, result["answers"])
    if done is not None:
        return {**result, **done}
    if not plan["is_needed"] and planned.rc == 0:
        text = "%s runs already" % plan["new_version"]
        return {**result, **_up_to_date(run, params, plan, result["answers"], text)}
    document = status(run)
    result["answers"]["status"] = document
    if _is_pending(document, plan):
        text = "armed for %s already: the next restart updates" % plan["new_version"]
        return {**result, "state": "armed", "msg": text}
    staged_text = "%s is staged already, and was verified" % plan["new_version"]
    if how and _is_staged(document, plan) and (check_mode or _is_as_asked(params, planned)):
        return {**result, "state": "staged", "msg": staged_text}
    if not params["retry_failed"] and _has_failed(document, plan):
        text = "%s has failed here before: %s" % (plan["new_version"], _how_it_failed(document))
        error = {"kind": "failed_before", "message": text, "exit_code": 1}
        raise RbuError(text, rc=1, error=error, answers=result["answers"])
    if not (how and set(obstacles(plan)) == {"policy_window"}):  # staging is allowed at any time
        checked(planned, answers=result["answers"])
    result["diff"] = _diff(document, plan, after)
    result["changed"] = True
    if check_mode:
        return {**result, "state": "planned", "msg": "would go to %s" % plan["new_version"]}
    done = run(["update", *words, *how], password)
    result["answers"]["update"] = done.document
    checked(done, answers=result["answers"])
    is_armed = done.document.get("is_armed", False)
    text = ("armed for %s" if is_armed else "%s is staged and verified") % plan["new_version"]
    if not done.document["changed"]:  # staged with this password and as asked; or by somebody else
        del result["diff"]
        text = text if is_armed else staged_text
    result["changed"] = done.document["changed"]
    return {**result, "state": "armed" if is_armed else "staged", "msg": text}


def bios_arm(run, params, check_mode=False):
    """Verify what is staged once more, and arm the BIOS for it."""
    if check_mode:
        document = status(run)
        answers = {"status": document}
        if document["is_armed"]:
            return {"changed": False, "state": "armed", "answers": answers}
        if document.get("state") != "staged":
            raise RbuError(
                "nothing is staged and verified (state: %s)" % document.get("state"),
                answers=answers,
                error={"kind": "not_staged", "message": "nothing is staged", "exit_code": 1},
            )
        return {"changed": True, "state": "planned", "answers": answers}
    policy = ["--policy", params["policy"]] if params.get("policy") else []
    done = run(["arm", *policy, *flag_words(params, ARM_FLAGS)], params.get("password"))
    answers = {"arm": done.document}
    checked(done, answers=answers)
    return {"changed": done.document["changed"], "state": "armed", "answers": answers}


def bios_cancel(run, params, check_mode=False):
    """Disarm, and free what is staged."""
    if check_mode:
        document = status(run)
        is_there = bool(
            document["is_armed"] or document["staged_size_bytes"] or document["load_under_way"]
        )
        return {"changed": is_there, "answers": {"status": document}}
    done = run(["cancel"], params.get("password"))
    answers = {"cancel": done.document}
    checked(done, answers=answers)
    result = {"changed": done.document["changed"], "answers": answers}
    if done.document["problem"]:
        result["warnings"] = [done.document["problem"]]
    return result
