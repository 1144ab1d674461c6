"""Reports as pages: what their policy lets them do."""

from server.web.console.reports import POLICY


def test_a_report_may_run_and_load_nothing() -> None:
    assert "default-src 'none'" in POLICY
    assert POLICY.endswith("; sandbox")
    assert "script-src" not in POLICY
