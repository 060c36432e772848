"""Notes are said each time they are true, once a call, and can be silenced."""

import logging
import subprocess
import sys
import threading

import pytest

import geoemb_xr as gx
from geoemb_xr.core import notes


def test_a_note_is_said_each_time(caplog):
    for _ in range(2):
        notes.say("twice true")
    assert caplog.messages == ["geoemb_xr: twice true"] * 2


def test_a_call_says_a_note_once_and_the_next_call_again(caplog):
    @notes.one_call()
    def inner(name):
        notes.say("of every file")
        notes.say(f"of {name}")

    @notes.one_call()
    def outer():
        inner("a")
        inner("b")

    outer()
    once = ["geoemb_xr: of every file", "geoemb_xr: of a", "geoemb_xr: of b"]
    assert caplog.messages == once
    outer()
    assert caplog.messages == 2 * once


def test_a_call_that_fails_is_over(caplog):
    def fails():
        with notes.one_call():
            notes.say("before it failed")
            raise OSError

    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011 - raised above
            fails()
    assert caplog.messages == ["geoemb_xr: before it failed"] * 2


def test_calls_of_two_threads_do_not_hush_each_other(caplog):
    both = threading.Barrier(2)

    @notes.one_call()
    def call():
        both.wait(5)
        notes.say("in each")
        both.wait(5)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert caplog.messages == ["geoemb_xr: in each"] * 2


def test_quiet_work_hushes_nobody_else_and_ends_with_itself(caplog):
    caplog.set_level("INFO", "geoemb_xr")
    begun, ended = threading.Event(), threading.Event()

    def work():
        with notes.quiet():
            begun.set()
            ended.wait(10)
            notes.say("of the work")

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(10)
    with notes.quiet():
        notes.say("inside")
    notes.say("meanwhile")
    ended.set()
    thread.join()
    notes.say("after")
    assert [each.getMessage() for each in caplog.records] == ["geoemb_xr: meanwhile", "geoemb_xr: after"]


def test_a_second_fit_that_drops_labels_says_so_too(caplog):
    da = gx.testing.synthetic("alphaearth", shape=(40, 40)).emb.year(2018)
    labels = gx.testing.scene().points(60, radius=150)
    labels.loc[:4, "lon"] = 100.0  # in no pixel
    for _ in range(2):
        caplog.clear()
        da.emb.fit_probe(labels, target="land_cover", method="centroid", cv=0)
        assert any("5" in each and "outside" in each for each in caplog.messages), caplog.messages


def test_opening_again_says_it_again(tmp_path, caplog):
    source = gx.product("presto").example(tmp_path, "geotiff")
    for _ in range(2):
        gx.open("presto", source)
    assert caplog.text.count("no publisher states one") == 2


def test_notes_reach_a_user_who_set_up_nothing_and_one_line_silences_them():
    code = """
import logging
import geoemb_xr as gx
gx.register(gx.Product("mine", dims=2))
gx.register(gx.Product("mine", dims=3))
logging.getLogger("geoemb_xr").setLevel("WARNING")
gx.register(gx.Product("mine", dims=4))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "geoemb_xr: product 'mine' is registered again, with another dims, bands\n"


def test_a_level_that_was_set_before_is_kept():
    code = """
import logging
logging.getLogger("geoemb_xr").setLevel("ERROR")
import geoemb_xr.core.notes as notes
print(notes.logger.level == logging.ERROR)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert logging.getLogger("geoemb_xr").level == logging.INFO
