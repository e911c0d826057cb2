"""Tokens as an identity provider makes them, and as an attacker would."""

import base64
import hashlib
import hmac
import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


def _part(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens:
    """Signs with the key that a server trusts. Claims given are added to good ones; None takes one away."""

    def __init__(self, server):
        self.key = load_pem_private_key(server.signing_key.read_bytes(), None)
        (public,) = json.loads((server.folder / "jwks.json").read_text())["keys"]
        self.header = {"typ": "JWT", "kid": public["kid"]}

    def claims(self, **changes):
        now = int(time.time())
        claims = {"iss": "https://genie.local", "aud": "devopsgenie", "sub": "somebody", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def user(self, subject, email=None, verified=True):
        return self.sign(sub=subject, email=email, email_verified=verified)

    def sign(self, **changes):
        return jwt.encode(self.claims(**changes), self.key, algorithm="ES256", headers=self.header)

    def sign_with_another_key(self):
        other = ec.generate_private_key(ec.SECP256R1())
        return jwt.encode(self.claims(), other, algorithm="ES256", headers=self.header)

    def sign_with_unknown_key_id(self):
        return jwt.encode(self.claims(), self.key, algorithm="ES256", headers={**self.header, "kid": "another"})

    def confuse_public_key_with_secret(self):
        """HS256 with the public key, which everybody has, as the secret."""
        text = f"{_part({**self.header, 'alg': 'HS256'})}.{_part(self.claims())}"
        secret = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"{text}.{_part(hmac.digest(secret, text.encode(), hashlib.sha256))}"

    def leave_unsigned(self):
        return f"{_part({**self.header, 'alg': 'none'})}.{_part(self.claims())}."

    def tamper(self):
        """A good signature below another subject."""
        header, _, signature = self.sign().split(".")
        return f"{header}.{_part(self.claims(sub='somebody-else'))}.{signature}"
