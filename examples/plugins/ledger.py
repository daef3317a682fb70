#!/usr/bin/env python3
"""A plugin for lidless that books amounts into a file, each once. See docs/step-protocol.md.

Settings: {"file": "ledger.jsonl", "account": "cash"}. Inputs of the run: {"amount": "12.50"}.
The file has one JSON object a line; its `key` is what makes a repetition one and the same entry.
"""

import fcntl
import json
import os
import re
import sys

DESCRIPTION = {
    "ok": True,
    "protocol": 1,
    "name": "ledger",
    "version": "1.0.0",
    "kinds": [
        {
            "name": "book",
            "class": "confirmable",
            "confirms": True,
            "undoes": True,
            "plans": True,
            "prepares": True,
            "counts": True,
        }
    ],
}


class Refused(Exception):
    """Nothing was done, and to try again would not help."""


class Ledger:
    """The file, locked for as long as it is open: two plugins may share it."""

    def __init__(self, settings):
        self.file = open(settings["file"], "a+b")

    def __enter__(self):
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.file.seek(0)
        whole, newline, torn = self.file.read().rpartition(b"\n")
        # A crash may have left half a line. It was never acknowledged, so it is not there.
        self.file.truncate(len(whole) + len(newline))
        self.entries = [json.loads(line) for line in whole.splitlines()]
        return self

    def __exit__(self, *_):
        self.file.close()

    def find(self, key):
        return [entry for entry in self.entries if entry["key"] == key]

    def append(self, entry):
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.file.flush()
        # Whoever is told that it is booked finds it there, also after a power cut.
        os.fsync(self.file.fileno())
        self.entries.append(entry)


def check(settings):
    """What is wrong with these settings?"""
    known = {"file": "where to book, for example \"ledger.jsonl\"", "account": "whose amounts these are"}
    for name, help in known.items():
        if not isinstance(settings.get(name), str) or not settings[name]:
            yield {"path": name, "message": "a text is needed here", "help": help}
    for name in settings.keys() - known.keys():
        yield {"path": name, "message": "there is no such setting", "help": "there are " + " and ".join(known)}


def entry_of(settings, call):
    """What is to be booked for this call, the same whenever it is asked."""
    if "undoes" in call:
        with Ledger(settings) as ledger:
            booked = ledger.find(call["undoes"]["idempotency_key"])
        if not booked:
            raise Refused("what is to be taken back was never booked")
        amount = booked[0]["amount"]
        amount = amount[1:] if amount.startswith("-") else "-" + amount
    else:
        amount = call["inputs"].get("amount")
        # A text, for a number would be rounded.
        if not isinstance(amount, str) or not re.fullmatch(r"-?\d+(\.\d+)?", amount):
            raise Refused("the input `amount` must be a text such as \"12.50\"")
    return {"key": call["idempotency_key"], "account": settings["account"], "amount": amount}


def book(settings, entry):
    """Books what was prepared, unless it is there already."""
    with Ledger(settings) as ledger:
        if not ledger.find(entry["key"]):
            ledger.append(entry)
        line = next(at for at, other in enumerate(ledger.entries, 1) if other["key"] == entry["key"])
    return {"ok": True, "output": {"line": line, "amount": entry["amount"]}, "handle": entry}


def confirm(settings, call):
    with Ledger(settings) as ledger:
        booked = ledger.find(call["idempotency_key"])
    if booked:
        return {"applied": True, "evidence": f"booked as {booked[0]}", "output": {"amount": booked[0]["amount"]}}
    # Nobody else writes for us: what is not there and no longer under way never will be.
    return {"applied": False, "evidence": "the key is not in the ledger"}


def answer(request):
    op, settings, call = request.get("op"), request.get("settings"), request.get("call")
    if op == "describe":
        return DESCRIPTION | ({"problems": list(check(settings))} if settings is not None else {})
    if op == "plan":
        entry = entry_of(settings, call)
        return {"ok": True, "plan": f"would book {entry['amount']} for {entry['account']}"}
    if op == "prepare":
        return {"ok": True, "handle": entry_of(settings, call)}
    if op in ("perform", "undo"):
        return book(settings, request["handle"])
    if op == "confirm":
        return confirm(settings, call)
    if op == "count":
        with Ledger(settings) as ledger:
            return {"ok": True, "count": len(ledger.find(call["idempotency_key"]))}
    raise Refused(f"there is no operation `{op}` here")


def main():
    # It ends with its input: that is how it learns that its lidless is gone.
    for line in sys.stdin.buffer:
        try:
            request = json.loads(line)
            number = request["id"]
        except (ValueError, KeyError, TypeError):
            print(f"this is no request: {line!r}", file=sys.stderr, flush=True)
            continue
        try:
            said = answer(request)
        except Refused as refused:
            said = {"ok": False, "error": str(refused), "class": "permanent"}
        print(json.dumps({"id": number} | said), flush=True)


main()
