import hashlib
import json
import math

import pytest

from drllama.ids import canonical_json, content_id, derive_seed, file_sha256, fingerprint

VALUES = [
    {},
    {"b": [1, 2.5, None], "a": {"true": True, "é": "是"}},
    ["", "a\nb", '"', "\u2028"],
    1e-3,
    2**63,
]


@pytest.mark.parametrize("value", VALUES)
def test_canonical_json_reads_back_as_the_value(value):
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_does_not_see_the_order_of_keys():
    assert canonical_json({"a": 1, "b": {"c": 2, "d": 3}}) == canonical_json({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_is_refused(number):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json([number])


def test_a_fingerprint_is_the_sha256_of_the_canonical_json():
    assert fingerprint({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()


def test_fingerprints_of_all_earlier_results_still_hold():
    assert fingerprint({"stage": "score", "asked": [1, None]}) == (
        "4254b1d9fea19f8ebfd2512c5565c5a2d6733fadfe82bd32fd6d981f6bd67b20"
    )
    assert content_id("is it so?", "context") == "6aca0a6d80d24183"
    assert derive_seed(42, "finetune") == 1605052596631536278


def test_texts_count_with_their_borders_and_their_order():
    assert len({content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id("c", "ab")}) == 4


def test_seeds_differ_by_root_and_by_each_part_of_their_name():
    names = [(42, "a"), (43, "a"), (42, "b"), (42, "a", "b"), (42, "ab"), (42, "a", 1), (42, "a", "1"), (42,)]
    seeds = [derive_seed(root, *scope) for root, *scope in names]
    assert len(set(seeds)) == len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_does_not_depend_on_who_asked_before():
    alone = derive_seed(7, "order", 3)
    derive_seed(7, "something", "else")
    assert derive_seed(7, "order", 3) == alone


def test_a_file_s_hash_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"\x00\xff" * 100_000)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"\x00\xff" * 100_000).hexdigest()
