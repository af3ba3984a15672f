"""scripts/verify_types.py, which CI runs as a step of its own, tells what pyright's report finds missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "verify_types.py"


def faults_of(report: dict[str, Any]) -> list[str]:
    spec = importlib.util.spec_from_file_location("verify_types", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    faults: list[str] = module.faults_of(report)
    return faults


def symbol(name: str, *messages: str, known: bool = True, ambiguous: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "isExported": True,
        "isTypeKnown": known,
        "isTypeAmbiguous": ambiguous,
        "diagnostics": [{"message": message} for message in messages],
    }


def report(*symbols: dict[str, Any], score: float = 1, names: int = 2, said: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "generalDiagnostics": [{"message": message} for message in said],
        "typeCompleteness": {
            "symbols": list(symbols),
            "completenessScore": score,
            "exportedSymbolCounts": {"withKnownType": names},
        },
    }


def test_a_complete_package_has_no_faults() -> None:
    assert faults_of(report(symbol("hoop.run"), symbol("hoop.Loop"))) == []


def test_each_name_is_told_with_its_reason() -> None:
    unknown = symbol("hoop.a", "Return type is unknown", known=False)
    ambiguous = symbol("hoop.b", "Type is missing\n  annotation", ambiguous=True)
    faults = faults_of(report(unknown, ambiguous, symbol("hoop.run"), score=0.5))
    assert faults == ["hoop.a: Return type is unknown", "hoop.b: Type is missing annotation"]


def test_a_package_that_was_not_found_is_a_fault() -> None:
    assert "No py.typed file found" in faults_of(report(score=0, names=0, said=("No py.typed file found",)))
    assert faults_of(report(score=0, names=0)) == ["hoop was not found, or exports nothing"]


def test_a_low_score_without_a_reason_is_a_fault() -> None:
    assert faults_of(report(symbol("hoop.run"), score=0.25)) == ["the score is 25.00%, with no reason given"]
