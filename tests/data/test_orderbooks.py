"""Readers of order books: LOBSTER pairs, labelled tables, FI-2010; broken files get one sentence each."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kontrast.data.orderbooks import (
    EMPTY,
    OrderStream,
    Truth,
    checked,
    empty_levels,
    events_from_labels,
    read_orderbooks,
)
from kontrast.errors import DataError

LEVELS = 2
MESSAGES = [
    "34200.000000001,1,11,100,1000100,1",
    "34200.5,5,0,10,1000150,-1",
    "34200.5,4,12,50,1000200,-1",
    "34201.25,3,11,100,1000100,1",
    "34202.0,7,0,0,-1,-1",
]
BOOK = [
    "1000200,50,1000100,100,1000300,10,1000000,20",
    "1000200,50,1000100,100,1000300,10,1000000,20",
    "1000300,10,1000100,100,9999999999,0,1000000,20",
    "1000300,10,1000000,20,9999999999,0,-9999999999,0",
    "1000300,10,1000000,20,9999999999,0,-9999999999,0",
]
STEM = "ACME_2031-05-06_34200000_57600000_{}_2.csv"


def lobster(folder, messages=MESSAGES, book=BOOK):
    folder.mkdir(exist_ok=True)
    path = folder / STEM.format("message")
    path.write_text("\n".join(messages) + "\n")
    (folder / STEM.format("orderbook")).write_text("\n".join(book) + "\n")
    return path


def table(n=30, **columns):
    price = 1_000_000 + 100 * np.arange(n)
    frame = pd.DataFrame({"time_ns": np.arange(n) * 1_000_000, "type": 1, "order_id": np.arange(n), "size": 100,
                          "price": price, "direction": 1, "ask_p1": price + 200, "ask_s1": 10, "bid_p1": price,
                          "bid_s1": 20})  # fmt: skip
    return frame.assign(**columns)


def write(frame, folder, name="ACME_2031-05-06_x.parquet"):
    frame.to_parquet(folder / name)
    return folder / name


def refusal(action):
    with pytest.raises(DataError) as caught:
        action()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# ---- LOBSTER ---------------------------------------------------------------------------------------------------------


def test_a_lobster_pair_is_read_from_either_file(tmp_path):
    message = lobster(tmp_path / "a")
    for path in (message, message.with_name(STEM.format("orderbook"))):
        (stream,) = read_orderbooks(path)
        assert (stream.ticker, stream.date, stream.levels) == ("ACME", "2031-05-06", 2)
        assert stream.time_ns.tolist() == [34200000000001, 34200500000000, 34201250000000, 34202000000000]
        assert stream.type.tolist() == [1, 4, 3, 7]
        assert stream.dropped == {"hidden executions": 1}
        assert stream.bid_price[0].tolist() == [1000100, 1000000]
        assert stream.ask_size[1].tolist() == [10, 0]
        assert stream.truth is None


def test_empty_levels_keep_lobsters_price_and_are_found(tmp_path):
    (stream,) = read_orderbooks(lobster(tmp_path / "a"))
    no_ask, no_bid = empty_levels(stream)
    assert stream.ask_price[1, 1] == EMPTY
    assert no_ask.tolist() == [[False, False], [False, True], [False, True], [False, True]]
    assert no_bid.tolist() == [[False, False], [False, False], [False, True], [False, True]]


def test_a_zip_of_two_days_gives_two_streams(tmp_path):
    folder = tmp_path / "a"
    lobster(folder)
    with zipfile.ZipFile(tmp_path / "days.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"sub/{file.name}")
            archive.write(file, f"sub/{file.name.replace('05-06', '05-07')}")
        archive.writestr("ReadMe.txt", "free sample")
    streams = read_orderbooks(tmp_path / "days.zip")
    assert [stream.date for stream in streams] == ["2031-05-06", "2031-05-07"]


@pytest.mark.parametrize(
    ("messages", "book", "words"),
    [
        (MESSAGES[:-1], BOOK, "4 messages and 5 books"),
        ([*MESSAGES[:-1], "34203.0,4,12,50,1000"], BOOK, "line 5"),
        ([*MESSAGES[:-1], "34203.0,4,12,fifty,1000200,-1"], BOOK, "no table of numbers"),
        ([*MESSAGES[:-1], "34100.0,4,12,50,1000200,-1"], BOOK, "earlier than the one before"),
        ([*MESSAGES[:-1], "34203.0,4,12,50,1000200,9"], BOOK, "direction 9"),
        ([*MESSAGES[:-1], "34203.0,4,12,-50,1000200,1"], BOOK, "size -50"),
        ([*MESSAGES[:-1], "34203.0,44,12,50,1000200,1"], BOOK, "type 44"),
        (MESSAGES, [line.rsplit(",", 4)[0] for line in BOOK], "4 columns, expected 8"),
        (MESSAGES, ["1000100,50,1000200,100,1000300,10,1000000,20"] * 5, "crossed or out of order"),
        (["time,type,order,size,price,direction", *MESSAGES[1:]], BOOK, "no table of numbers"),
    ],
)
def test_damaged_lobster_files_are_refused(tmp_path, messages, book, words):
    path = lobster(tmp_path / "a", messages, book)
    sentence = refusal(lambda: read_orderbooks(path))
    assert words in sentence
    assert path.name in sentence


def test_a_lone_message_file_names_the_other(tmp_path):
    path = lobster(tmp_path / "a")
    path.with_name(STEM.format("orderbook")).unlink()
    assert STEM.format("orderbook") in refusal(lambda: read_orderbooks(path))


def test_broken_and_foreign_zips_are_refused(tmp_path):
    folder = tmp_path / "a"
    lobster(folder)
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / STEM.format("message"), STEM.format("message"))
    assert "has no orderbook file" in refusal(lambda: read_orderbooks(whole))
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:100])
    assert "not a whole zip" in refusal(lambda: read_orderbooks(cut))
    content = bytearray(whole.read_bytes())
    content[len(content) // 3] ^= 0xFF
    cut.write_bytes(bytes(content))
    refusal(lambda: read_orderbooks(cut))
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    assert "photo.jpg" in refusal(lambda: read_orderbooks(whole))


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_is_read_with_labels_events_kinds_and_split(tmp_path):
    label = (np.arange(30) // 3 == 2).astype(int)
    frame = table(label=label, event_id=np.where(label, 7, -1), kind=np.where(label, "layering", "real"),
                  split=np.repeat(["train", "val", "test"], 10))  # fmt: skip
    for name in ("ACME_2031-05-06_x.parquet", "ACME_2031-05-06_x.csv"):
        path = tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
        (stream,) = read_orderbooks(path)
        assert (stream.ticker, stream.date, stream.levels) == ("ACME", "2031-05-06", 1)
        assert np.array_equal(stream.truth.label, label)
        assert set(stream.truth.event[label == 1]) == {7}
        assert set(stream.truth.kind) == {0, 2}
        assert stream.split.tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_a_streams_table_reads_back_as_it_was(tmp_path):
    label = (np.arange(30) > 25).astype(np.int8)
    frame = table(label=label, event_id=np.where(label, 0, -1), kind=label, split=2 * (np.arange(30) > 20))
    (stream,) = read_orderbooks(write(frame, tmp_path))
    (again,) = read_orderbooks(write(stream.to_frame(), tmp_path))
    pd.testing.assert_frame_equal(stream.to_frame(), again.to_frame())


def test_ticker_and_date_columns_make_streams(tmp_path):
    both = pd.concat([table(ticker="B", date="2031-05-06"), table(ticker="A", date="2031-05-07")])
    streams = read_orderbooks(write(both, tmp_path, "market.parquet"))
    assert [stream.name for stream in streams] == ["A 2031-05-07", "B 2031-05-06"]


def test_snapshots_without_messages_are_a_table_too(tmp_path):
    frame = table().drop(columns=["type", "order_id", "size", "price", "direction"])
    (stream,) = read_orderbooks(write(frame, tmp_path))
    assert not stream.has_messages


def test_events_are_found_from_labels_alone(tmp_path):
    time = np.array([0, 1, 2, 9, 10]) * 1_000_000_000
    assert events_from_labels(time, np.array([1, 1, 0, 1, 0], np.int8)).tolist() == [0, 0, -1, 1, -1]
    (stream,) = read_orderbooks(write(table(label=(np.arange(30) == 4).astype(int)), tmp_path))
    assert stream.truth.event[4] == 0
    assert stream.truth.kind[4] == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="time_ns"), "no column 'time_ns'"),
        (lambda f: f.drop(columns="bid_s1"), "no whole first level"),
        (lambda f: f.drop(columns="direction"), "not 'direction'"),
        (lambda f: f.assign(ask_p1=f.ask_p1.astype(float).mask(f.index == 3)), "row 4 has nan in column 'ask_p1'"),
        (lambda f: f.assign(price=f.price + 0.5), "give a whole number"),
        (lambda f: f.assign(size="many"), "'many' in column 'size'"),
        (lambda f: f.assign(label=2), "label 2"),
        (lambda f: f.assign(label=1, event_id=-1), "no event_id"),
        (lambda f: f.assign(label=1, kind="fraud"), "kind 'fraud'"),
        (lambda f: f.assign(split="later"), "split 'later'"),
        (lambda f: f.assign(time_ns=f.time_ns[::-1].to_numpy()), "row 2 is earlier"),
        (lambda f: f.assign(bid_p1=f.ask_p1 + 100), "crossed or out of order"),
        (lambda f: f.assign(type=99), "type 99"),
        (lambda f: f.assign(bid_s1=-1), "bid size -1"),
        (
            lambda f: f.assign(label=1, event_id=3, split=(f.index > 9).astype(int)),
            "event 3 has messages in more than one",
        ),
    ],
)
def test_broken_tables_are_refused(tmp_path, change, words):
    path = write(change(table()), tmp_path)
    sentence = refusal(lambda: read_orderbooks(path))
    assert words in sentence
    assert path.name in sentence


def test_damaged_empty_and_unknown_files_are_refused(tmp_path):
    path = write(table(), tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    refusal(lambda: read_orderbooks(path))
    path.write_bytes(b"")
    assert "empty" in refusal(lambda: read_orderbooks(path))
    (tmp_path / "book.xls").write_text("x")
    assert ".xls" in refusal(lambda: read_orderbooks(tmp_path / "book.xls"))
    assert "no such file" in refusal(lambda: read_orderbooks(tmp_path / "absent.zip"))
    (tmp_path / "bare").mkdir()
    assert "nothing" in refusal(lambda: read_orderbooks(tmp_path / "bare"))


def test_a_folder_prefers_tables_and_refuses_a_day_twice(tmp_path):
    folder = tmp_path / "day"
    lobster(folder)
    write(table(), folder)
    (stream,) = read_orderbooks(folder)
    assert len(stream) == 30
    write(table(), folder, "ACME_2031-05-06_copy.parquet")
    assert "twice" in refusal(lambda: read_orderbooks(folder))


def test_a_manipulated_event_may_not_be_torn_and_check_sees_empty_streams():
    stream = OrderStream(
        "A", "", *(np.zeros(0, np.int64) for _ in range(6)), *(np.zeros((0, 1), np.int64) for _ in range(4))
    )
    assert "no messages" in refusal(lambda: checked(stream))
    assert Truth.none(3).label.tolist() == [0, 0, 0]


def test_take_and_first_levels_keep_what_they_should(tmp_path):
    (stream,) = read_orderbooks(lobster(tmp_path / "a"))
    assert stream.first_levels(1).ask_price.shape == (4, 1)
    part = replace(stream, truth=Truth.none(4)).take(slice(1, 3))
    assert len(part) == 2
    assert len(part.truth.label) == 2


# ---- FI-2010 ---------------------------------------------------------------------------------------------------------


def fi2010(n=50, rows=149, jump=None):
    rng = np.random.default_rng(0)
    mid = 0.2615 + np.cumsum(rng.integers(-1, 2, n)) * 1e-4
    if jump is not None:
        mid[jump:] += 0.1
    book = np.zeros((rows, n))
    for level in range(10):
        book[4 * level] = mid + 1e-4 * (level + 1)
        book[4 * level + 1] = rng.random(n) * 0.01
        book[4 * level + 2] = mid - 1e-4 * (level + 1)
        book[4 * level + 3] = rng.random(n) * 0.01
    return book


@pytest.mark.parametrize("rows", [149, 144, 40])
def test_fi2010_is_read_as_it_comes_and_transposed(tmp_path, rows):
    book = fi2010(rows=rows)
    np.savetxt(tmp_path / "Test_Dst_NoAuction_DecPre_CF_7.txt", book)
    np.save(tmp_path / "book.npy", book.T)
    for name in ("Test_Dst_NoAuction_DecPre_CF_7.txt", "book.npy"):
        (stream,) = read_orderbooks(tmp_path / name)
        assert (len(stream), stream.levels, stream.has_messages) == (50, 10, False)
        assert stream.ask_price[0, 0] == round(book[0, 0] * 1e6)
        assert stream.bid_size[3, 2] == round(book[11, 3] * 1e6)


def test_a_jump_of_the_price_begins_another_stock_of_fi2010(tmp_path):
    np.save(tmp_path / "book.npy", fi2010(jump=20))
    assert [len(stream) for stream in read_orderbooks(tmp_path / "book.npy")] == [20, 30]


def test_broken_fi2010_files_are_refused(tmp_path):
    path = tmp_path / "book.npy"
    np.save(path, fi2010() - 0.5)
    assert "z-scored" in refusal(lambda: read_orderbooks(path))
    np.save(path, np.zeros((7, 9)))
    assert "7 x 9 numbers" in refusal(lambda: read_orderbooks(path))
    np.save(path, np.where(np.arange(50) == 3, np.nan, fi2010()))
    assert "snapshot 4" in refusal(lambda: read_orderbooks(path))
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "no table of numbers" in refusal(lambda: read_orderbooks(path))
    (tmp_path / "book.txt").write_text("prices: high\n")
    assert "no table of numbers" in refusal(lambda: read_orderbooks(tmp_path / "book.txt"))


# ---- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.learning
def test_the_lobster_sample_days_agree_with_the_labelled_tables(shared_data):
    folder = shared_data / "lobster_l5"
    if not folder.is_dir():
        pytest.skip("lobster_l5 is not there")
    for ticker, rows in (("AMZN", 155_935), ("GOOG", 112_673)):
        (original,) = read_orderbooks(folder / f"LOBSTER_SampleFile_{ticker}_2012-06-21_5.zip")
        (labelled,) = read_orderbooks(folder / f"{ticker}_2012-06-21_l5_injected.parquet")
        assert len(original) + original.dropped["hidden executions"] == rows
        real = labelled.take(labelled.truth.label == 0)
        for name in ("time_ns", "type", "order_id", "size", "price", "direction"):
            assert np.array_equal(getattr(real, name), getattr(original, name)), name
