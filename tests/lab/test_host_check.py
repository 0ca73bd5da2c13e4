# SPDX-License-Identifier: BSD-3-Clause
"""What the host cannot do is refused by --check and by a start alike, and nothing is left behind."""

import pytest
from conftest import assert_nothing_left
from gateways import Spillway
from topology import GW_LAN, SNAT


@pytest.fixture
def right(lab, records):
    if not Spillway.built():
        pytest.skip("build/spillway is not built")
    return Spillway(lab, lab.n_queues)


def refusals(lab, gateway, *replacements):
    """What --check and a start say of the configuration with these replacements."""
    text = gateway.config_text(lab.n_queues)
    for old, new in replacements:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = lab.path("refused.yaml")
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    said = []
    for argv, code in ((["--check", path], 2), ([path], 3)):
        done = lab.gw.run(gateway.binary, *argv, check=False, timeout=30)
        assert done.returncode == code, done
        said.append(done.stdout + done.stderr)
    assert_nothing_left(lab)
    return said


def test_snat_is_the_host_itself(lab, right, family):
    """The only address of a link as SNAT address would take the host's own answers from it."""
    for said in refusals(lab, right, (f'"{SNAT[family]}"', f'"{GW_LAN[family]}"')):
        assert f"gateway.snat[{0 if family == 4 else 1}]: eth2 has no other IPv{family} address" in said
        assert "dev lo preferred_lft 0" in said
