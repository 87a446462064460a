"""URLs of several servers, and which server of a cluster a command goes to."""

from typing import Any

import pytest
from hypothesis import given, strategies as st
from redis.crc import key_slot

from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.errors import UsageError
from evflow.log import commands, flow_commands
from evflow.log.keys import INSTALLATION
from evflow.log.protocol import AppendCall, Head, Lease, RunEntry
from evflow.log.scripts import with_source
from evflow.log.sentinel import sentinels
from evflow.log.slots import SLOTS, Node, Topology, Unwaited, key_of, least, slot_of, slots_of
from evflow.log.url import Address, parse

RUN = RunId(FlowName("Flow"), RunNumber(3))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "redis+sentinel://a,b:7000/main",
            Address("redis+sentinel", "", "a", 26379, None, None, 0, {}, (("a", 26379), ("b", 7000)), "main"),
        ),
        (
            "rediss+sentinel://ada:x%2Cy@[::1]:1/main/2?sentinel_password=z&ssl_ca_certs=/c",
            Address(
                "rediss+sentinel", "", "::1", 1, "ada", "x,y", 2, {"sentinel_password": "z", "ssl_ca_certs": "/c"}, (("::1", 1),), "main"
            ),
        ),
        ("redis+cluster://:p@a:7000,b:7001", Address("redis+cluster", "", "a", 7000, None, "p", 0, {}, (("a", 7000), ("b", 7001)))),
    ],
)
def test_a_url_of_several_servers_is_taken_apart(url: str, address: Address) -> None:
    assert parse(url) == address
    assert not address.is_local


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://a", "the name that they have"),
        ("redis+cluster://a/1", "no other database than 0"),
        ("redis+cluster://a?sentinel_password=x", "has no option"),
        ("redis+sentinel://a:b/main", "is not a number"),
    ],
)
def test_what_is_wrong_with_one_is_said(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(url)


def test_a_server_is_entered_as_the_url_says_and_a_sentinel_with_its_own_password() -> None:
    address = parse("rediss+sentinel://ada:x@s1,s2:7/main/2?sentinel_password=z&ssl_ca_certs=/c")
    assert address.at("host", 6000) == parse("rediss://ada:x@host:6000/2?ssl_ca_certs=/c")
    assert sentinels(address) == [parse("rediss://:z@s1:26379?ssl_ca_certs=/c"), parse("rediss://:z@s2:7?ssl_ca_certs=/c")]


def test_neither_password_is_shown() -> None:
    shown = parse("redis+sentinel://ada:hunter2@a,b/main?sentinel_password=hunter3").shown
    assert "hunter" not in shown
    assert shown == "'main' of the Sentinels a:26379,b:26379"


@given(st.text(alphabet="ab{}:", max_size=12) | st.text(max_size=20))
def test_a_key_s_slot_is_what_redis_says(key: str) -> None:
    assert slot_of(key) == key_slot(key.encode())


def test_all_keys_of_each_exchange_s_script_are_in_one_slot() -> None:
    lease = Lease("s3", "me", 1, 4.0)
    call = AppendCall(RUN, Head(), (b"e",), (bytes(32),))
    asked: list[commands.Operation[Any]] = [
        commands.take("s3", "me", 4.0), commands.append(lease, call), commands.report("s3", RUN, b""),
        flow_commands.index_run(RunEntry(RUN, "s3", {})), flow_commands.append_flow(RUN.flow, 0, b"", None), commands.schedulers("me", 1.0),
    ]  # fmt: skip
    for operation in asked:
        for command in operation.commands:
            if command[0] == "EVALSHA":
                keys = command[3 : 3 + int(command[2])]
                assert len({slot_of(key) for key in keys}) == 1
                assert key_of(command) == key_of(with_source(command)) == keys[0]


def test_a_command_without_a_key_goes_with_the_one_before_it() -> None:
    found = slots_of(
        [("TIME",), ("HGET", "{evflow:s3}:lease", "owner"), ("TIME",), ("XREAD", "COUNT", 1, "STREAMS", "{evflow:s4}:inbox", "0")]
    )
    assert found == [slot_of(INSTALLATION), slot_of("{evflow:s3}"), slot_of("{evflow:s3}"), slot_of("{evflow:s4}")]


def test_a_map_names_the_primary_of_each_slot_and_nobody_where_there_is_none() -> None:
    reply = [[8_000, 16_000, [b"", 7001, b"id", []], [b"x", 1, b"id", []]], [0, 7_999, [b"h", 7000, b"id", []]]]
    topology = Topology.read(reply, Node("seed", 1))
    assert [topology.of_slot(slot) for slot in (0, 7_999, 8_000, 16_000)] == [Node("h", 7000)] * 2 + [Node("seed", 7001)] * 2
    assert topology.of_slot(SLOTS - 1) is None
    assert topology.primaries == [Node("h", 7000), Node("seed", 7001)]


def test_a_server_that_was_written_to_while_another_write_was_waited_for_is_waited_for_again() -> None:
    unwaited, one, other = Unwaited(), Node("a", 1), Node("b", 1)
    unwaited.note(one, [("EVALSHA", "x", 1, "k"), ("GET", "k")])
    unwaited.note(other, [("HSET", "k", "f", "v")])
    before = unwaited.now
    unwaited.note(one, [("SET", "k", "v")])
    unwaited.waited(before)
    assert list(unwaited.now) == [one]
    unwaited.note(other, [("GET", "k"), ("WAIT", 1, 1)])
    assert list(unwaited.now) == [one]


def test_the_least_of_several_servers_counts() -> None:
    assert (least([2, 0, 1], "WAIT"), least([], "WAIT")) == (0, 1)
    assert (least([[1, 2], [1, 0]], "WAITAOF"), least([], "WAITAOF")) == ([1, 0], [1, 1])
