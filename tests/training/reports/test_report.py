"""The report: what a person reads on a page, on a terminal, and in JSON."""

import math
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from connectors.conversation import ChatMessage
from training.adapters.package import KnowledgeRef
from training.config import Objectives
from training.evaluation.gates import apply_gates
from training.evaluation.verdicts import comparisons_of
from training.events import StepEvent, ValidationEvent
from training.reports.learning_curve import control_findings, learning_curve
from training.reports.loss_curve import CurvePoint, chart, read_curves
from training.reports.report import (
    Provenance,
    Report,
    print_scores,
    render_html,
    render_terminal,
    to_json,
)
from training.reports.tables import difference_rows, findings, score_rows
from training.results import (
    Controls,
    Difference,
    Evaluation,
    LanguageCoverage,
    LossChange,
    Metric,
    Parity,
    Reply,
    ReplySample,
    Scores,
    Subject,
    TopicCoverage,
    TrainedControl,
)

NASTY = "<script>alert('x')</script> & \"Müller\" {{ 7*7 }} [bold]"


def scores(perplexity: float | None, exact: float, f1: float, similarity: float) -> Scores:
    return Scores(
        perplexity=perplexity,
        nats_per_token=None,
        tokens=5053 if perplexity else 0,
        exact=exact,
        token_f1=f1,
        similarity=similarity,
        replies=32,
    )


def said(text: str, *, exact: bool = False) -> Reply:
    return Reply(text=text, exact=exact, token_f1=0.5, similarity=0.7)


def evaluation(
    *, live: bool = False, text: str = "Could I get your name?", few: bool = False
) -> Evaluation:
    sample = ReplySample(
        conversation="star-1",
        turn=3,
        history=(
            ChatMessage(role="user", content="hello"),
            ChatMessage(role="assistant", content="Hello, how can I help?"),
            ChatMessage(role="user", content=text),
        ),
        reference="Could I get your full name, please?",
        base=said("I am an AI"),
        new=said("Could I get your full name, please?", exact=True),
        live=said("") if live else None,
        lookup=said("Yes"),
    )
    return Evaluation(
        split="test",
        conversations=47,
        base=scores(12.83, 0.0, 0.12, 0.25),
        new=scores(2.41, 0.41, 0.6, 0.71),
        live=scores(2.5, 0.4, 0.5, 0.7) if live else None,
        lookup=scores(None, 0.44, 0.5, 0.58),
        differences=(
            Difference(metric="exact", against="base", mean=0.41, low=0.2, high=0.6),
            Difference(metric="token_f1", against="base", mean=0.48, low=0.3, high=0.6),
            Difference(metric="exact", against="lookup", mean=-0.03, low=-0.2, high=0.1, items=32),
            Difference(metric="similarity", against="lookup", mean=-0.3, low=-0.4, high=-0.1),
            apart("nats_per_token", math.log(2.41 / 12.83), few=few),
            apart("similarity", 0.46, few=few),
            apart("token_f1", 0.1, against="lookup", few=few),
            apart("inventing", -0.1, few=few),
            *((apart("nats_per_token", -0.04, against="live", few=few),) if live else ()),
        ),
        samples=(sample,),
        seconds=31.0,
        notes=("32 greedy replies",),
    )


def apart(metric: Metric, mean: float, *, against: Subject = "base", few: bool) -> Difference:
    low, high, items = (None, None, 2) if few else (mean - 0.05, mean + 0.05, 47)
    return Difference(metric=metric, against=against, mean=mean, low=low, high=high, items=items)


def report(
    *,
    live: bool = False,
    text: str = "hi",
    parity: bool = True,
    points: int = 40,
    few: bool = False,
) -> Report:
    result = evaluation(live=live, text=text, few=few)
    found = Parity(mean_abs=0.004, p99_abs=0.03, max_abs=0.2, tokens=2011, conversations=12)
    measured = found if parity else None
    return Report(
        tenant="Northgate & Sons",
        version=3,
        evaluation=result,
        parity=measured,
        verdict=apply_gates(result, measured, Objectives()),
        training_curve=[CurvePoint(n, 3 - n / 20) for n in range(1, points)],
        validation_curve=[CurvePoint(n, 3 - n / 25) for n in range(10, points, 10)],
        provenance=Provenance(
            base="smollm2-135m-instruct",
            base_sha256="a" * 64,
            base_parameters=134_500_000,
            parameters=4_900_000,
            dataset_sha256="d" * 64,
            conversations={"train": 317, "validation": 32, "test": 47},
            dropped={"near_duplicate": 3},
            recipe="cpu-small",
            seed=17,
            rank=16,
            tokens=83_925,
            steps=120,
            seconds=310.0,
            stopped="epochs done",
            packages={"torch": "2.13.0"},
        ),
        made_at="2026-11-23T10:00:00+00:00",
    )


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what a reader sees."""

    VOID = frozenset({"meta", "line", "polyline", "br", "!doctype"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_the_verdict_is_the_first_thing_on_the_page() -> None:
    text = words(render_html(report()))
    assert text.index("Passed: may answer customers") < text.index("Scores") < text.index("Loss")
    assert "better Held-out perplexity" in text
    assert "ratio 0.188 (0.179 to 0.197), must be at most 0.80" in text


def test_a_gate_that_says_worse_is_named_and_counted() -> None:
    worse = report()
    verdict = apply_gates(worse.evaluation, worse.parity, Objectives(max_perplexity_ratio=0.1))
    text = words(render_html(msgspec.structs.replace(worse, verdict=verdict)))
    assert "Not promoted: 1 of 5 gates says worse" in text
    assert "worse Held-out perplexity" in text


def test_gates_that_cannot_tell_leave_it_to_a_person() -> None:
    html = render_html(report(few=True))
    text = words(html)
    assert "Waits for a person: 4 of 5 gates cannot tell with this much data" in text
    assert "it waits for a person's approval" in text
    assert "cannot tell Held-out perplexity" in text
    assert "2 conversations are too few to tell, 6 are needed" in text
    classes = [attrs.get("class") for tag, attrs in Page(html).tags if tag == "li"]
    assert classes[:5] == [*["cannot_tell"] * 4, "better"]


def test_an_engine_that_serves_something_else_is_the_headline() -> None:
    text = words(render_html(report(parity=False)))
    assert "Unsafe: must not be served" in text
    assert "UNSAFE Trainer and engine were not compared" in text


def test_a_report_of_before_there_were_three_results_is_shown() -> None:
    data = msgspec.to_builtins(report(parity=False))
    del data["verdict"]["result"], data["evaluation"]["live_note"]
    for gate in data["verdict"]["gates"]:
        for field in ("result", "low", "high"):
            del gate[field]
    for difference in data["evaluation"]["differences"]:
        del difference["items"]
    for scores in (data["evaluation"][name] for name in ("base", "new", "lookup")):
        del scores["perplexity_low"], scores["perplexity_high"]
    old = msgspec.convert(data, Report)
    assert old.verdict.result == "worse"
    assert "better Held-out perplexity" in words(render_html(old))


def test_why_the_live_adapter_is_not_compared_is_said_among_the_findings() -> None:
    note = "not compared with the live adapter: it was trained on other data"
    apart_from = msgspec.structs.replace(evaluation(), live_note=note)
    assert "Not compared with the live adapter: it was trained on other data." in findings(
        apart_from
    )
    whole = msgspec.structs.replace(report(), evaluation=apart_from)
    assert "Not compared with the live adapter" in words(render_html(whole))


def test_the_lead_over_the_live_adapter_is_that_over_what_both_have_read() -> None:
    assert "Perplexity is 4% lower than the live adapter's over 5,053 tokens." in findings(
        evaluation(live=True)
    )


def test_the_ratio_of_perplexities_is_in_the_table_of_differences() -> None:
    rows = {(r.against, r.measure): r for r in difference_rows(evaluation(live=True))}
    row = rows["base", "perplexity"]
    assert (row.mean, row.interval, row.verdict) == ("x 0.19", "x 0.18 to x 0.20", "better")
    assert rows["live", "perplexity"].result == "cannot_tell"
    few = {(r.against, r.measure): r for r in difference_rows(evaluation(few=True))}
    assert few["base", "perplexity"].interval == "-"
    assert few["base", "perplexity"].verdict == (
        "cannot tell with this much data: 2 conversations are too few to tell, 6 are needed"
    )


def test_each_difference_has_a_verdict_in_words_and_how_much_data_would_tell() -> None:
    found = {(c.against, c.metric): c for c in comparisons_of(evaluation(live=True))}
    exact = found["lookup", "exact"]
    # 32 * ((1.960 + 0.842) / 1.960 * 0.15 / 0.03) ** 2, and of 47 conversations as many
    assert (exact.result, exact.unit, exact.compared, exact.needed) == (
        "cannot_tell",
        "replies",
        32,
        1635,
    )
    assert exact.words == (
        "cannot tell with this much data: about 1,600 held-out replies would be needed to tell, 32 "
        "were compared"
    )
    live = found["live", "nats_per_token"]
    assert (live.unit, live.compared, live.needed) == ("conversations", 47, 151)
    assert found["base", "inventing"].words == "better"
    same = msgspec.structs.replace(
        evaluation(),
        differences=(
            Difference(metric="exact", against="base", mean=0.0, low=0.0, high=0.0, items=32),
        ),
    )
    assert comparisons_of(same)[0].words == (
        "cannot tell with this much data: nobody can say how many replies would, 32 were compared"
    )


def test_what_customers_wrote_cannot_become_markup() -> None:
    html = render_html(report(text=NASTY))
    assert "<script" not in html
    assert NASTY in Page(html).text


def test_the_page_needs_no_script_and_no_other_file() -> None:
    html = render_html(report(live=True))
    page = Page(html)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.findall(r"(?:src|href)=|url\(|@import|https?://", html)


def test_the_page_follows_the_readers_light_or_dark_setting_and_small_screens() -> None:
    html = render_html(report())
    assert "prefers-color-scheme: dark" in html
    assert "@media (max-width" in html
    assert 'name="viewport"' in html


def test_tables_and_chart_can_be_read_aloud() -> None:
    page = Page(render_html(report()))
    scopes = [attrs.get("scope") for tag, attrs in page.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(t == "table" for t, _ in page.tags)
    (svg,) = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert svg["role"] == "img"
    assert (
        svg["aria-label"]
        == "training loss from 2.95 to 1.05, validation loss from 2.60 to 1.80 in 39 steps"
    )
    assert next(attrs["lang"] for tag, attrs in page.tags if tag == "html") == "en"


def test_lookup_stands_beside_every_score() -> None:
    columns, rows = score_rows(evaluation(live=True))
    assert columns == ["base", "new", "live", "lookup"]
    assert [[c.text for c in row.cells] for row in rows] == [
        ["12.83", "2.41", "2.50", "-"],
        ["0%", "41%", "40%", "44%"],
        ["0.12", "0.60", "0.50", "0.50"],
        ["0.25", "0.71", "0.70", "0.58"],
    ]
    assert [[c.best for c in row.cells] for row in rows][:2] == [
        [False, True, False, False],
        [False, False, False, True],
    ]


def learnt_from_pairs() -> Report:
    whole = report(live=True)
    found = whole.evaluation
    new, base, live = (
        msgspec.structs.replace(each, preference_accuracy=share, preference_margin=0.1)
        for each, share in ((found.new, 0.8), (found.base, 0.52), (found.live, 0.6))
        if each is not None
    )
    new = msgspec.structs.replace(new, preference_gain=0.96)
    result = msgspec.structs.replace(
        found,
        new=new,
        base=base,
        live=live,
        comparisons=25,
        differences=(
            *found.differences,
            apart("preference_accuracy", 0.28, few=False),
            apart("preference_margin", 0.0, few=False),
        ),
    )
    made = msgspec.structs.replace(whole.provenance, method="dpo", started_from="acme.0123456789ab")
    return msgspec.structs.replace(
        whole, evaluation=result, provenance=made, verdict=apply_gates(result, None, Objectives())
    )


def test_the_articles_that_a_version_was_trained_with_are_named() -> None:
    whole = report()
    assert "pieces" not in words(render_html(whole))
    knowledge = KnowledgeRef(sha256="ab" * 32, pieces=1234)
    made = msgspec.structs.replace(whole.provenance, knowledge=knowledge)
    whole = msgspec.structs.replace(whole, provenance=made)
    assert "1,234 pieces, as they were when the job began (abababababababab)" in words(
        render_html(whole)
    )
    console = terminal()
    render_terminal(whole, console)
    assert "with 1,234 pieces of articles (abababababab)" in shown(console)


def test_shared_preferences_are_in_the_table_the_findings_and_the_gates() -> None:
    whole = learnt_from_pairs()
    _, rows = score_rows(whole.evaluation)
    assert [cell.text for cell in rows[0].cells] == ["52%", "80%", "60%", "-"]
    assert [cell.best for cell in rows[0].cells] == [False, True, False, False]
    assert findings(whole.evaluation)[0] == (
        "The wanted reply is the likelier one in 80% of 25 comparisons (52% for the base, 60% for "
        "the live adapter)."
    )
    assert findings(whole.evaluation)[1] == (
        "Training made the wanted reply gain on the other in 96% of them."
    )
    text = words(render_html(whole))
    assert "in 80% of 25 comparisons (75% to 85%), for the base in 52%" in text
    assert "DPO's loss of a pair of replies, by step" in text
    assert "one was preferred (DPO), starting from acme.0123456789ab" in text
    console = terminal()
    render_terminal(whole, console)
    assert "Preferred" in shown(console)
    assert "(dpo, cpu-small, rank 16, seed 17)" in " ".join(shown(console).split())
    assert msgspec.json.decode(to_json(whole), type=Report) == whole


def test_where_nothing_differs_nothing_is_called_best() -> None:
    same = scores(None, 0.0, 0.0, 0.0)
    result = msgspec.structs.replace(evaluation(), base=same, new=same, lookup=same)
    _, rows = score_rows(result)
    assert not any(cell.best for row in rows for cell in row.cells)


def test_the_findings_say_also_what_speaks_against_the_adapter() -> None:
    assert findings(evaluation()) == [
        "Perplexity is 81% lower than the base's over 5,053 tokens.",
        "Replies against the base: better in identical replies, shared words, meaning and replies "
        "that invent.",
        "Replies against plain lookup: better in shared words; worse in meaning; cannot tell with "
        "this much data in identical replies (about 1,600 would).",
        "32 replies were compared: a difference below about 0.20 may be chance.",
    ]


def test_a_live_adapter_gets_its_own_column_and_replies() -> None:
    text = words(render_html(report(live=True)))
    assert "Live adapter" in text
    assert "(nothing)" in text
    assert "Live adapter" not in words(render_html(report()))


def test_a_report_without_events_or_replies_still_renders() -> None:
    bare = msgspec.structs.replace(
        report(points=1),
        evaluation=msgspec.structs.replace(evaluation(), samples=(), differences=()),
        version=0,
    )
    html = render_html(bare)
    assert "<svg" not in html
    assert "No reply was generated" in words(html)
    assert "version" not in words(html)


def test_json_gives_the_report_back() -> None:
    whole = report(live=True)
    assert msgspec.json.decode(to_json(whole), type=Report) == whole
    assert msgspec.convert(msgspec.to_builtins(whole), Report) == whole


def terminal() -> Console:
    return Console(file=StringIO(), width=100)


def shown(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_verdict_gates_scores_and_findings() -> None:
    console = terminal()
    render_terminal(report(parity=False), console)
    text = shown(console)
    assert text.startswith("Northgate & Sons version 3: Unsafe: must not be served")
    assert "UNSAFE  trainer and engine were not compared" in text
    assert "better  held-out perplexity 2.41" in text
    assert "2.41" in text
    assert "worse in meaning; cannot tell with this much data in" in " ".join(text.split())


def test_text_in_brackets_is_no_markup_on_the_terminal() -> None:
    console = terminal()
    render_terminal(msgspec.structs.replace(report(), tenant="[red]Acme[/nope]"), console)
    assert "[red]Acme[/nope]" in shown(console)


def test_scores_alone_can_be_printed() -> None:
    console = terminal()
    print_scores(evaluation(), console)
    assert "lookup" in shown(console)
    assert "32 greedy replies" in shown(console)


def write_events(path: Path, losses: dict[int, float], *, validations: dict[int, float]) -> None:
    events: list[StepEvent | ValidationEvent] = [
        StepEvent(
            at=0.0,
            step=step,
            steps=9,
            epoch=0.1,
            loss=loss,
            learning_rate=1e-3,
            tokens=1,
            tokens_per_second=1.0,
            eta_seconds=1.0,
        )
        for step, loss in losses.items()
    ]
    events += [ValidationEvent(at=0.0, step=s, loss=x, best=True) for s, x in validations.items()]
    with path.open("ab") as file:
        file.writelines(msgspec.json.encode(event) + b"\n" for event in events)


def test_a_step_repeated_after_a_crash_counts_as_its_last(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write_events(path, {1: 3.0, 2: 2.5}, validations={})
    with path.open("ab") as file:
        file.write(b'{"event":"step","at":1,"st')  # the line that a kill cut short
        file.write(b"\nsome library's own print\n")
    write_events(path, {2: 2.0, 3: 1.5}, validations={3: 1.8})
    training, validation = read_curves(path)
    assert [(p.step, p.loss) for p in training] == [(1, 3.0), (2, 2.0), (3, 1.5)]
    assert [(p.step, p.loss) for p in validation] == [(3, 1.8)]


def test_a_long_run_is_thinned_by_means(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write_events(path, {step: float(step % 2) for step in range(1, 1001)}, validations={})
    training, _ = read_curves(path)
    assert len(training) <= 300
    assert training[-1].step == 1000
    assert all(0.2 < point.loss < 0.8 for point in training)


@pytest.mark.parametrize("top", [0.004, 0.7, 1.0, 2.6, 4.87, 10.0, 85.0])
def test_axes_have_round_marks_that_hold_the_curve(top: float) -> None:
    drawn = chart([CurvePoint(1, top), CurvePoint(40, top / 2)], [])
    assert drawn is not None
    marks = [float(tick.text) for tick in drawn.y_ticks]
    assert marks[0] == 0
    assert top <= marks[-1] < 1.6 * top + 1e-3
    assert 3 <= len(marks) <= 7
    assert all(0 <= tick.at <= 100 for tick in [*drawn.x_ticks, *drawn.y_ticks])


def test_one_point_is_a_curve_and_none_is_no_chart() -> None:
    assert chart([], []) is None
    drawn = chart([], [CurvePoint(0, 1.2)])
    assert drawn is not None
    assert [text for _, _, text in drawn.dots] == ["step 0: 1.200"]


def test_a_report_with_retrieval_has_a_column_for_each_part() -> None:
    found = evaluation()
    sample = found.samples[0]
    sample = msgspec.structs.replace(
        sample, base_retrieval=said("With what was said."), new_plain=said("From memory.")
    )
    found = msgspec.structs.replace(
        found,
        samples=(sample,),
        base_retrieval=scores(9.0, 0.1, 0.2, 0.3),
        new_plain=scores(3.0, 0.2, 0.4, 0.5),
    )
    columns, _ = score_rows(found)
    assert columns == ["base", "base + retrieval", "new, no retrieval", "new", "lookup"]
    page = render_html(msgspec.structs.replace(report(), evaluation=found))
    for text in ("shown no past exchanges", "With what was said.", "From memory."):
        assert text in page


def control(
    conversations: int, perplexity: float | None, *, width: float = 0.2, epochs: float = 3.2
) -> TrainedControl:
    found = scores(perplexity, 0.1, 0.3, 0.5)
    if perplexity:
        low, high = perplexity * (1 - width), perplexity * (1 + width)
        found = msgspec.structs.replace(found, perplexity_low=low, perplexity_high=high)
    return TrainedControl(
        conversations=conversations, tokens=20_310, epochs=epochs, seconds=150.0, scores=found
    )


def change(mean: float, width: float | None = 0.02) -> LossChange:
    low, high = (None, None) if width is None else (mean - width, mean + width)
    return LossChange(mean=mean, low=low, high=high, conversations=22)


CONTROLS = Controls(
    tokens=20_310,
    curve=tuple(control(n, p) for n, p in ((20, 6.0), (51, 4.5), (102, 3.6), (204, 3.0))),
    scratch=control(204, 300.0),
    scratch_rate=1e-3,
    pretraining=change(-math.log(100)),
    last_doubling=change(math.log(3.0 / 3.6)),
)


def test_the_learning_curve_is_a_picture_that_needs_no_script_and_a_sentence() -> None:
    html = render_html(msgspec.structs.replace(report(), controls=CONTROLS))
    said = words(html)
    assert "trained on as many tokens (20,310), has 100 times this version's perplexity" in said
    assert "From 102 to 204 conversations, on as many tokens, perplexity fell by 17%" in said
    assert "more of them would probably help further" in said
    assert (
        said.index("10% of the data")
        < said.index("this version204")
        < said.index("from scratch204")
    )
    tags = Page(html).tags
    lines = [attrs for tag, attrs in tags if tag == "line" and attrs.get("class") == "interval"]
    assert len(lines) == len(CONTROLS.curve)
    assert "script" not in {tag for tag, _ in tags}
    drawn = learning_curve(CONTROLS)
    assert drawn is not None
    assert [point.y for point in drawn.points] == sorted(point.y for point in drawn.points)
    assert all(0 <= each.at <= 100 for each in (*drawn.x_ticks, *drawn.y_ticks))
    assert words(render_html(report())).count("from scratch") == 0


@pytest.mark.parametrize(
    ("doubling", "expected"),
    [
        (change(-0.1, 0.2), "does not tell whether more of them would help"),
        (change(0.1), "more like them would not help"),
        (change(-0.1, None), "too little was held out"),
    ],
    ids=["unclear", "worse", "few"],
)
def test_what_more_conversations_would_do_is_only_claimed_with_its_interval(
    doubling: LossChange, expected: str
) -> None:
    few = msgspec.structs.replace(
        CONTROLS,
        scratch=None,
        scratch_note="nothing was trained from scratch: there was no memory",
        last_doubling=doubling,
        curve=tuple(control(n, None, epochs=0.4) for n in (2, 4)),
    )
    assert learning_curve(few) is None
    scratch, said, unread = control_findings(few)
    assert scratch.startswith("Nothing was trained from scratch")
    assert expected in said
    assert "trained on 40% of what its conversations hold" in unread


@pytest.mark.parametrize(("codes", "shown"), [(("en", "de"), True), (("en", "und"), False)])
def test_the_page_tells_topics_apart_by_language_where_there_are_several(
    codes: tuple[str, ...], shown: bool
) -> None:
    topic = TopicCoverage(
        words=("refund",),
        example="Where is my refund?",
        share=1.0,
        conversations=40,
        replies=4,
        new=0.5,
        lookup=0.4,
        languages=tuple(
            LanguageCoverage(language=code, conversations=20, replies=2, new=0.31, lookup=0.4)
            for code in codes
        ),
    )
    found = msgspec.structs.replace(evaluation(), topics=(topic,))
    given = msgspec.structs.replace(report(), evaluation=found)
    page = render_html(given)
    assert ("Topics by language" in page) is shown
    assert ("20 <small>F1 0.31, 2</small>" in page) is shown
