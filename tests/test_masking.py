"""Secrets of URIs are masked; what is not a secret stays readable."""

from __future__ import annotations

import pickle

import pytest

from lmmcl.errors import UserError, explain
from lmmcl.masking import has_secrets, mask, user_info

MASKED = {
    "postgresql://someone:NOTASECRET@127.0.0.1:9/db": "postgresql://***@127.0.0.1:9/db",
    "see 'postgresql://u:p/a?b#c@h:5/db?sslpassword=zz&x=1'": "see 'postgresql://***@h:5/db?sslpassword=***&x=1'",
    "https://ghp_token@github.com/x.git": "https://***@github.com/x.git",
    "https://h/p?X-Amz-Signature=a&X-Amz-Credential=b/1&part=2": "https://h/p?X-Amz-Signature=***&X-Amz-Credential=***&part=2",
    "az://c/f?sig=abc%3D&sv=2020&account_key=q==": "az://c/f?sig=***&sv=2020&account_key=***",
    "https://h/#access_token=q": "https://h/#access_token=***",
    "two: http://a:b@h:1/ and (http://c:d@i:2/)": "two: http://***@h:1/ and (http://***@i:2/)",
    "mysql+pymysql://a@h/d": "mysql+pymysql://***@h/d",
}
PLAIN = [
    "s3://bucket/pre@x/y",
    "sqlite:////home/a:b@c/x.db",
    "http://localhost:8265 is mine@home",
    "https://h/p?monkey=1&author=me&path=/x&design=2",
    "someone@host, no URI; key=value",
    "file:///x/y:z@w",
]


@pytest.mark.parametrize("text", MASKED)
def test_secrets_are_masked_and_nothing_else(text: str) -> None:
    assert mask(text) == MASKED[text]
    assert mask(mask(text)) == mask(text)
    assert has_secrets(text)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text and not has_secrets(text)


def test_errors_hold_no_secret_wherever_it_came_in_and_wherever_they_go() -> None:
    error = UserError(
        "no answer of http://a:NOTASECRET@h", file="store ftp://a:NOTASECRET@h", place="http://NOTASECRET@h"
    )
    for told in (error, pickle.loads(pickle.dumps(error)), error.at(file="s3://x?key=NOTASECRET")):
        assert "NOTASECRET" not in f"{told} {told.message} {told.file} {told.place}"
    assert "NOTASECRET" not in explain(ValueError("postgresql://a:NOTASECRET@h"))


def test_user_and_password_are_taken_out_of_a_uri() -> None:
    assert user_info("http://me:p%40ss@host:5000/x") == ("http://host:5000/x", "me", "p@ss")
    assert user_info("http://host:80/a?email=a@b") == ("http://host:80/a?email=a@b", "", "")
