"""The figures of the suite `vqa`: accuracy of each candidate, the tests of pairs, and the table."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from inlay_model.datasets.items import Question
from inlay_model.evaluation.overlap import token_f1
from inlay_model.evaluation.statistics import holm, mcnemar, p_text, wilson
from inlay_model.evaluation.vqa import Answered


def summary(questions: Sequence[Question], answered: Sequence[Answered]) -> dict[str, Any]:
    """Accuracy of each candidate, overall and by form of question, and McNemar's test of every pair."""
    forms = {"all": [True] * len(questions), "closed": [q.closed for q in questions]}
    forms["open"] = [not closed for closed in forms["closed"]]
    accuracy: dict[str, dict[str, Any]] = {}
    for row in answered:
        found: dict[str, Any] = {}
        for form, belongs in forms.items():
            right = [verdict for verdict, counts in zip(row.right, belongs, strict=True) if counts]
            if right:
                share = sum(right) / len(right)
                bounds = [round(bound, 6) for bound in wilson(share, len(right))]
                found[form] = {"n": len(right), "accuracy": round(share, 6), "wilson_95": bounds}
        f1 = [token_f1(q.answer, answer) for q, answer in zip(questions, row.answers, strict=True)]
        accuracy[row.candidate] = {**found, "token_f1": round(float(np.mean(f1)), 6)}
    pairs = list(combinations(answered, 2))
    tests = [mcnemar(one.right, other.right) for one, other in pairs]
    adjusted = holm([test.p for test in tests])
    return {
        "n": len(questions),
        "candidates": accuracy,
        "mcnemar": [
            {"first": one.candidate, "second": other.candidate, **test.to_json(), "p_holm": float(f"{p:.4g}")}
            for (one, other), test, p in zip(pairs, tests, adjusted, strict=True)
        ],
    }


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures of every set laid out like the paper's Table 1, a column per candidate; then the pairs."""
    names = list(next(iter(figures.values()))["candidates"])
    lines = [f"| accuracy | n | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for title, found in figures.items():
        for form in ("all", "closed", "open"):
            cells = [found["candidates"][name].get(form) for name in names]
            if cells[0] is None:
                continue
            shown = [f"{c['accuracy']:.3f} ({c['wilson_95'][0]:.3f} to {c['wilson_95'][1]:.3f})" for c in cells]
            head = f"**{title}**" if form == "all" else f"{title}, {form}"
            lines.append(f"| {head} | {cells[0]['n']} | {' | '.join(shown)} |")
    tests = [(title, test) for title, found in figures.items() for test in found["mcnemar"]]
    if tests:
        lines += ["", "| set | first | second | only first right | only second right | p (McNemar) | p (Holm) |"]
        lines.append("|---|---|---|---|---|---|---|")
        for title, test in tests:
            ps = f"{p_text(test['p'])} | {p_text(test['p_holm'])}"
            counts = f"{test['first_only']} | {test['second_only']}"
            lines.append(f"| {title} | {test['first']} | {test['second']} | {counts} | {ps} |")
    return "\n".join(lines)


def lines_of(questions: Sequence[Question], answered: Sequence[Answered]) -> Iterator[dict[str, Any]]:
    """One line per question for any other scorer to read: reference, answers, verdicts."""
    for at, question in enumerate(questions):
        yield {
            "id": question.id,
            "image": question.image.name,
            "question": question.text,
            "reference": question.answer,
            "kind": question.kind,
            "answers": {row.candidate: row.answers[at] for row in answered},
            "right": {row.candidate: row.right[at] for row in answered},
        }
