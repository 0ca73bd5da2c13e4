# SPDX-License-Identifier: BSD-3-Clause
"""The five outages hurt over plain kernel NAT, and do not over Spillway."""

import contextlib

import pytest
from gateways import Nftables, Spillway, running
from outages import OUTAGES

pytestmark = pytest.mark.long


@pytest.fixture(params=OUTAGES)
def outage(lab, records, request):
    with contextlib.closing(OUTAGES[request.param](lab)) as it:
        it.arrange()
        yield it


def test_hurts_before(lab, outage):
    with running(Nftables(lab, services=outage.services)):
        seen = outage.measure()
    assert outage.hurt(seen) and not outage.cured(seen), (outage.felt(seen), seen)


def test_cured_after(lab, outage):
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    with running(Spillway(lab, lab.n_queues, outage.services)) as gateway:
        seen = outage.measure()
        ledger = gateway.ledger()
    assert outage.cured(seen) and not outage.hurt(seen), (outage.felt(seen), seen)
    assert ledger["balance"] == 0
