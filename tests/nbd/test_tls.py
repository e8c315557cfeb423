"""TLS: which clients get in, what is answered without it, and what other people's clients make of it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import struct
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dsreg.errors import ConfigError
from nbd_frontend.channel import tls_context
from nbd_frontend.negotiation import Tls
from nbd_frontend.numbers import CommandType, OptionType, Reply
from tests.nbd import client as sent
from tests.nbd.client import RawClient, go_data
from tests.nbd.tools import SIZE, Serving, nbdsh, needs, run, serving

Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def certificate(name: str, issuer: Signed | None = None) -> Signed:
    """One for this host, by an authority, or that of an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signer, signing_key = issuer if issuer is not None else (None, key)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(signer.subject if signer is not None else subject)
        .public_key(public).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(signing_key, hashes.SHA256()), key


def write(directory: Path, name: str, signed: Signed) -> None:
    cert, key = signed
    (directory / f"{name}-cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}-key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as qemu and libnbd have it: server and client, with the authority that has signed both."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = certificate("authority")
    write(directory, "ca", authority)
    write(directory, "server", certificate("server", authority))
    write(directory, "client", certificate("client", authority))
    return directory


def client_context(directory: Path, with_certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=directory / "ca-cert.pem")
    if with_certificate:
        context.load_cert_chain(directory / "client-cert.pem", directory / "client-key.pem")
    return context


async def upgraded(server: Serving, context: ssl.SSLContext, *, tcp: bool = True) -> RawClient:
    """A client that has begun TLS."""
    plain = await server.client(tcp)
    await plain.greet()
    assert [reply.kind for reply in await plain.ask(OptionType.STARTTLS)] == [Reply.ACK]
    stream = trio.SSLStream(plain.stream, context, server_hostname="localhost")  # type: ignore[arg-type]
    await stream.do_handshake()
    return RawClient(stream)


@pytest.mark.parametrize("tls", [Tls.FORCED, Tls.REQUIRED], ids=["force", "require"])
async def test_a_client_with_tls_gets_the_disk(tmp_path: Path, certificates: Path, tls: Tls) -> None:
    async with serving(tmp_path, tls=tls, certificates=tls_context(certificates)) as server:
        client = await upgraded(server, client_context(certificates))
        assert [reply.kind for reply in await client.ask(OptionType.STARTTLS)] == [Reply.ERR_INVALID]
        assert (await client.ask(OptionType.GO, go_data()))[-1].kind == Reply.ACK
        data = bytes(range(256)) * 4096
        assert (await client.call(CommandType.WRITE, 77, data=data)).error == 0
        assert (await client.call(CommandType.READ, 77, len(data))).data == data
        await client.begin(CommandType.DISC)
        assert await client.stream.receive_some() == b""  # the end in order, by TLS's own word


@pytest.mark.parametrize(("tls", "lists"), [(Tls.FORCED, Reply.ERR_TLS_REQD), (Tls.REQUIRED, Reply.ACK)])
async def test_without_tls_there_is_no_disk(tmp_path: Path, certificates: Path, tls: Tls, lists: Reply) -> None:
    async with serving(tmp_path, tls=tls, certificates=tls_context(certificates)) as server:
        client = await server.client(tcp=True)
        await client.greet()
        assert (await client.ask(OptionType.LIST))[-1].kind == lists
        for number in (OptionType.INFO, OptionType.GO):
            assert [reply.kind for reply in await client.ask(number, go_data())] == [Reply.ERR_TLS_REQD]
        await client.stream.send_all(sent.option(OptionType.EXPORT_NAME))
        assert await client.at_end()
        local = await server.entered()  # the socket in the file system is protected by its mode
        assert (await local.call(CommandType.READ, 0, 1)).error == 0


async def test_a_client_without_a_certificate_is_turned_away(tmp_path: Path, certificates: Path) -> None:
    async with serving(tmp_path, tls=Tls.FORCED, certificates=tls_context(certificates)) as server:
        with pytest.raises((trio.BrokenResourceError, EOFError, ssl.SSLError)):
            client = await upgraded(server, client_context(certificates, with_certificate=False))
            await client.ask(OptionType.GO, go_data())  # TLS 1.3 tells with the first answer


async def test_what_is_no_tls_ends_the_connection(tmp_path: Path, certificates: Path) -> None:
    """Options in clear text behind STARTTLS, as somebody in the middle could put there, are never looked at."""
    async with serving(tmp_path, tls=Tls.FORCED, certificates=tls_context(certificates)) as server:
        client = await server.client(tcp=True)
        await client.stream.send_all(struct.pack(">I", 3) + sent.option(OptionType.STARTTLS)
                                     + sent.option(OptionType.GO, go_data()))
        await client.exactly(18)
        assert (await client.exactly(20))[8:16] == struct.pack(">II", OptionType.STARTTLS, Reply.ACK)
        with trio.fail_after(30):
            received = b""
            while data := await client.stream.receive_some():
                received += bytes(data)
        assert received[:1] in (b"", b"\x15")  # an alert of TLS at most, and no reply of the protocol
        assert (await (await server.entered()).call(CommandType.READ, 0, 1)).error == 0


async def test_what_was_agreed_on_before_tls_is_void(tmp_path: Path, certificates: Path) -> None:
    async with serving(tmp_path, tls=Tls.REQUIRED, certificates=tls_context(certificates)) as server:
        plain = await server.client(tcp=True)
        await plain.greet()
        await plain.ask(OptionType.STRUCTURED_REPLY)
        assert [reply.kind for reply in await plain.ask(OptionType.STARTTLS)] == [Reply.ACK]
        stream = trio.SSLStream(plain.stream, client_context(certificates),  # type: ignore[arg-type]
                                server_hostname="localhost")
        client = RawClient(stream)
        context = sent.contexts_data("", "base:allocation")
        assert (await client.ask(OptionType.SET_META_CONTEXT, context))[-1].kind == Reply.ERR_INVALID


@pytest.mark.parametrize("name", ["server-cert.pem", "server-key.pem", "ca-cert.pem"])
def test_certificates_that_are_none_are_named(tmp_path: Path, certificates: Path, name: str) -> None:
    for path in certificates.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tls_context(tmp_path)
    (tmp_path / name).write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot be used"):
        tls_context(tmp_path)
    (tmp_path / name).unlink()
    if name == "ca-cert.pem":
        assert tls_context(tmp_path).verify_mode == ssl.CERT_NONE
    else:
        with pytest.raises(ConfigError, match=f"{name}: is needed"):
            tls_context(tmp_path)


# --- other people's clients ---------------------------------------------------------------------------
@needs("nbdsh")
@pytest.mark.parametrize("tls", [Tls.FORCED, Tls.REQUIRED], ids=["force", "require"])
async def test_libnbd(tmp_path: Path, certificates: Path, tls: Tls) -> None:
    script = f"""
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_certificates({str(certificates)!r})
h.connect_tcp("localhost", PORT)
assert h.get_tls_negotiated() and h.get_size() == {SIZE}
h.pwrite(b"sealed__" * 65536, 512)
assert h.pread(8 * 65536, 512) == b"sealed__" * 65536
h.shutdown()
n = nbd.NBD()
try:
    n.connect_tcp("localhost", PORT)
except nbd.Error as error:
    print("refused", error)
"""
    async with serving(tmp_path, tls=tls, certificates=tls_context(certificates)) as server:
        assert "refused" in await nbdsh("", script.replace("PORT", repr(str(server.address[1]))))


@needs("qemu-img")
async def test_qemu(tmp_path: Path, certificates: Path) -> None:
    async with serving(tmp_path, tls=Tls.FORCED, certificates=tls_context(certificates)) as server:
        image = f"driver=nbd,host=127.0.0.1,port={server.address[1]},tls-creds=tls0"
        done = await run("qemu-io", "--object", f"tls-creds-x509,id=tls0,endpoint=client,dir={certificates}",
                         "--image-opts", image, "-c", "write -P 3 0 2M", "-c", "read -P 3 0 2M")
        assert "failed" not in done.stdout + done.stderr and "read 2097152" in done.stdout
