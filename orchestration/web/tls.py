"""The server's certificate, looked at before the server starts: later its clients would be told, and nobody else."""

from __future__ import annotations

import ssl

from ..errors import UserError


def check_tls(cert: str | None, key: str | None) -> None:
    """Refuse files that do not make a certificate.

    Raises:
        UserError: names the file, what is wrong with it and what to give instead.
    """
    if not cert and not key:
        return
    if not cert or not key:
        given, missing = ("--tls-cert", "--tls-key") if cert else ("--tls-key", "--tls-cert")
        raise UserError(f"{given} needs {missing}: a certificate and its key belong together.")
    _must_hold("--tls-cert", cert, "CERTIFICATE", "a certificate with its chain")
    _must_hold("--tls-key", key, "PRIVATE KEY", "the certificate's private key")

    def no_password() -> str:
        raise UserError(
            f"--tls-key {key} is encrypted, and nobody may be there to type its password. Decrypt it into a file that "
            f"only you can read: (umask 077; openssl pkey -in {key} -out FILE)"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UserError(
                f"--tls-key {key} is not the key of the certificate in --tls-cert {cert}. The server's own certificate "
                "stands first in its file, then those that have signed it."
            ) from None
        raise UserError(
            f"--tls-cert {cert} and --tls-key {key} cannot be used ({error.reason or error}): are both PEM files whole?"
        ) from error


def _must_hold(option: str, path: str, label: str, wanted: str) -> None:
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be read ({error.strerror}). Give a PEM file that the server's user may read."
        ) from error
    if f"{label}-----".encode() not in found:
        raise UserError(f"{option} {path} holds no {label} in PEM: give {wanted}.")
