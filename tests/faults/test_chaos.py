"""The whole system under real faults keeps its promises. `python -m tests.faults` runs more of them."""

import pytest

from tests.faults.run import run_chaos, shown

FAULTS = 60
SEED = 20_260
TIMEOUT_S = 360


@pytest.mark.timeout(TIMEOUT_S)
async def test_nothing_is_lost_doubled_or_reordered_under_faults() -> None:
    report = await run_chaos(FAULTS, SEED)
    print(shown(report, SEED))
    assert not report.violations, shown(report, SEED)
