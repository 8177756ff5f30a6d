"""One bucket through obstore: what it is asked, what its refusals mean, and what may not be said of it."""

from __future__ import annotations

import re
import sys
import traceback

import pytest

from data_engine.errors import ConfigError, DataEngineError, StoreError
from data_engine.store.s3.bucket import Bucket, Conflict, endpoint_of, parts_of
from object_server import Service, serving
from stores import KEY, SECRET


@pytest.fixture
def service(monkeypatch):
    with serving() as made:
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def bucket(service) -> Bucket:
    return Bucket.open("s3://bars/a/b")


# ------------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://my.bucket-2/a/b=c", ("my.bucket-2", "a/b=c")),
        ("s3://bucket/a b/ü", ("bucket", "a b/ü")),
    ],
)
def test_an_address_is_a_bucket_and_a_prefix(url, parts):
    assert parts_of(url) == parts


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///a", "s3://a//b", "s3://a/../b", "s3://a/.", "s3://a/b?c", "s3://a/b#c", "s3://a/%41", "gs://a", "a"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match=re.escape(repr(url))):
        parts_of(url)


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        pytest.param({}, None, id="amazon"),
        pytest.param({"AWS_ENDPOINT_URL": " "}, None, id="empty"),
        pytest.param({"AWS_ENDPOINT_URL": "https://s3.example.com/"}, "https://s3.example.com", id="another-service"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "https://a.example", "AWS_ENDPOINT_URL_S3": "https://b.example"},
            "https://b.example",
            id="the-nearer-name-wins",
        ),
        pytest.param({"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"}, "http://127.0.0.1:8333", id="this-machine"),
        pytest.param({"AWS_ENDPOINT_URL": "http://localhost:8333"}, "http://localhost:8333", id="this-machine-by-name"),
        pytest.param({"AWS_ENDPOINT_URL": "http://[::1]:8333"}, "http://[::1]:8333", id="this-machine-in-ipv6"),
    ],
)
def test_the_endpoint_is_that_of_the_usual_variables(environ, endpoint):
    assert endpoint_of(environ) == endpoint


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://s3.example.com", "https.*http to s3.example.com"),
        ("http://10.0.0.1:9000", "must use https"),
        ("http://127.0.0.1.example.com", "must use https"),
        ("ftp://127.0.0.1", "https://s3.example.com"),
        ("s3.example.com", "https://s3.example.com"),
        ("https://key:secret@s3.example.com", "without user, password or query"),
        ("https://s3.example.com?a=b", "without user, password or query"),
        ("https://s3.example.com:port", "https://s3.example.com"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_and_named_by_its_variable(url, why):
    with pytest.raises(ConfigError, match=rf"^AWS_ENDPOINT_URL .*{why}") as error:
        endpoint_of({"AWS_ENDPOINT_URL": url})
    assert "secret" not in str(error.value)


def test_allowing_http_by_a_variable_does_not_open_a_far_endpoint(monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.com")

    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL.*https"):
        Bucket.open("s3://bars/a")


# ----------------------------------------------------------------------------------------------------------- what is missing


def test_without_obstore_it_says_what_to_install(monkeypatch):
    for name in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ConfigError, match=r"s3://bars/a.*`pip install obstore`"):
        Bucket.open("s3://bars/a")


def test_half_a_pair_of_credentials_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)

    with pytest.raises(ConfigError, match=r"SecretAccessKey.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as error:
        Bucket.open("s3://bars/a")
    assert KEY not in str(error.value)


def test_a_profile_is_not_read_and_it_says_how_to_use_one(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "work")

    with pytest.raises(ConfigError, match=r"AWS_PROFILE.*aws configure export-credentials"):
        Bucket.open("s3://bars/a")


def test_where_there_are_no_credentials_at_all_it_says_so(monkeypatch):
    """On Amazon's own machines the metadata service would have some; here nobody answers."""
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(StoreError, match=r"s3://bars/a/key.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Bucket.open("s3://bars/a").get("key")


# --------------------------------------------------------------------------------------------------------- what is asked


def test_a_write_is_one_request_with_its_condition(service, bucket):
    first = bucket.put("x", b"1", "create", "one")
    second = bucket.put("x", b"2", first, "two")
    bucket.put("x", b"3", "overwrite", "three")

    conditions = [{name: told[name] for name in ("if-match", "if-none-match") if name in told} for _, _, told in service.asked]
    assert [(method, key) for method, key, _ in service.asked] == [("PUT", "a/b/x")] * 3
    assert conditions == [{"if-none-match": "*"}, {"if-match": first}, {}]
    assert first != second
    found = bucket.get("x")
    assert (found.content, found.writer, found.tag) == (b"3", "three", service.things["a/b/x"].tag)


def test_a_write_of_many_bytes_is_one_request_too(service, bucket):
    """In parts it would be another protocol, with other conditions, and could leave parts behind."""
    bucket.put("x", bytes(12 << 20), "create", "one")

    assert [method for method, _, _ in service.asked] == ["PUT"]
    assert bucket.size("x") == 12 << 20


@pytest.mark.parametrize("mode", ["create", '"another tag"'])
def test_a_condition_that_is_not_met_is_a_conflict(bucket, mode):
    bucket.put("x", b"1", "create", "one")

    with pytest.raises(Conflict):
        bucket.put("x", b"2", mode, "two")
    assert bucket.get("x").content == b"1"


def test_a_write_onto_what_is_gone_is_a_conflict(bucket):
    tag = bucket.put("x", b"1", "create", "one")
    bucket.delete("x")

    with pytest.raises(Conflict):
        bucket.put("x", b"2", tag, "two")


def test_a_removal_can_have_a_condition(service, bucket):
    tag = bucket.put("x", b"1", "create", "one")
    bucket.put("x", b"2", tag, "two")
    with pytest.raises(Conflict):
        bucket.delete("x", tag)
    bucket.delete("x", bucket.get("x").tag)
    bucket.delete("x")

    assert service.things == {}
    assert [told.get("if-match") is not None for method, _, told in service.asked if method == "DELETE"] == [True, True, False]


# --------------------------------------------------------------------------------------------------- refusals

REFUSALS = {
    "denied": ((403, "AccessDenied", "Access Denied"), ["permission denied", "AccessDenied", "Access Denied"]),
    "denied-without-words": ((403, "", ""), ["permission denied", "403"]),
    "no-bucket": ((404, "NoSuchBucket", "none"), ["no such bucket"]),
    "bad-secret": (
        (403, "SignatureDoesNotMatch", "Check your key"),
        ["credentials", "SignatureDoesNotMatch", "Check your key"],
    ),
    "bad-key": ((403, "InvalidAccessKeyId", "unknown"), ["credentials", "InvalidAccessKeyId", "unknown"]),
    "region": ((301, "PermanentRedirect", "elsewhere"), ["region", "AWS_REGION"]),
    "whatever": ((400, "InvalidRequest", "what is this?"), ["InvalidRequest", "what is this?"]),
}


@pytest.mark.parametrize(("refusal", "named"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_line_with_its_reason(service, bucket, refusal, named):
    service.refuse = lambda *_: refusal
    requests = {
        "read s3://bars/a/b/x": lambda: bucket.get("x"),
        "write s3://bars/a/b/x": lambda: bucket.put("x", b"1", "create", "one"),
        "list s3://bars/a/b/y": lambda: list(bucket.objects("y")),
        "remove s3://bars/a/b/x": lambda: bucket.delete("x"),
    }
    for what, request in requests.items():
        with pytest.raises(StoreError) as error:
            request()
        message = str(error.value)
        assert message.startswith(f"cannot {what}: ")
        assert "\n" not in message
        assert [word for word in named if word not in message] == []


def test_a_service_that_cannot_be_reached_is_named(monkeypatch):
    for name, value in Service(url="http://127.0.0.1:9").env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("data_engine.store.s3.bucket._RETRY", {"max_retries": 1})

    with pytest.raises(StoreError, match=r"s3://bars/a/x: .*error sending request"):
        Bucket.open("s3://bars/a").get("x")


def test_a_service_that_stumbles_is_asked_again(service, bucket):
    stumbles = iter([(503, "SlowDown", "slow down"), (500, "InternalError", "oh")])
    service.refuse = lambda *_: next(stumbles, None)
    bucket.put("x", b"1", "create", "one")

    assert service.things["a/b/x"].content == b"1"


def test_credentials_are_in_no_error_and_no_repr_whoever_repeats_them(service, bucket):
    service.refuse = lambda *_: (400, "Bad", f"your key {KEY} and {SECRET} are bad")
    with pytest.raises(DataEngineError) as error:
        bucket.put("x", b"1", "create", "one")

    chain: BaseException | None = error.value
    while chain is not None:
        assert not any(secret in str(chain) + repr(chain) for secret in (KEY, SECRET))
        chain = chain.__cause__ or chain.__context__
    whole = "".join(traceback.format_exception(error.value)) + repr(bucket) + repr(vars(bucket))
    assert not any(secret in whole for secret in (KEY, SECRET))
    assert "your key *** and *** are bad" in str(error.value)


def test_keys_are_in_the_bucket_as_they_are(place, request):
    """Percent signs are part of them: a bucket that is copied to a disk is the same store."""
    if place.kind not in ("moto", "seaweedfs"):
        pytest.skip("only a service has keys of its own")
    key = "d/symbol=A%2FB/x~y-z_1.json"
    Bucket.open(place.base).put(key, b"1", "create", "one")

    assert place.content() == {key: b"1"}
