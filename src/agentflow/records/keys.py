"""API keys in the database: their sha256, never themselves. A key is 256 random bits, so no slow hash is needed."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uuid_utils

from agentflow.errors import BadInput, Conflict, NotFound
from agentflow.protocols import Owner
from agentflow.records.connections import Connections
from agentflow.turn import Json

PREFIX = "af_"
SCOPES = ("chat", "threads", "memory", "users", "admin")
"""What a key may do; `users`: speak for any user of its tenant, named in the request."""

ADD = """
insert into api_key (id, tenant, user_ref, name, digest, scopes, expires_at)
values (%(id)s, %(tenant)s, %(user)s, %(name)s, %(digest)s, %(scopes)s, now() + %(seconds)s * interval '1 second')
"""
NAMED = """
select user_ref, scopes, extract(epoch from expires_at - created_at)::float8 from api_key
where tenant = %(tenant)s and name = %(name)s and not disabled and (expires_at is null or expires_at > now())
order by created_at desc limit 1
"""
WHOSE = """
select distinct tenant from api_key
where name = %(name)s and not disabled and (expires_at is null or expires_at > now()) order by tenant
"""
USED = """
update api_key set last_used_at = now()
where digest = %(digest)s and not disabled and (expires_at is null or expires_at > now())
returning id, tenant, user_ref, name, scopes, digest
"""
ANY = "select exists (select from api_key where not disabled and (expires_at is null or expires_at > now()))"
LISTED = """
select tenant, user_ref, name, scopes, disabled, expires_at <= now(), expires_at, last_used_at, created_at
from api_key where %(tenant)s::int is null or tenant = %(tenant)s order by tenant, name, created_at
"""
DISABLE = "update api_key set disabled = true where tenant = %(tenant)s and name = %(name)s and not disabled"
EXPIRE = """
update api_key set expires_at = least(expires_at, now() + %(seconds)s * interval '1 second')
where tenant = %(tenant)s and name = %(name)s and not disabled and (expires_at is null or expires_at > now())
"""


@dataclass(frozen=True)
class Key:
    """A key that may be used now. `id` tells keys of one name apart."""

    id: str
    tenant: int
    user: str
    name: str
    scopes: frozenset[str]
    digest: bytes


@dataclass(frozen=True)
class Keys:
    """The table of keys, for whoever runs this server: across tenants."""

    connections: Connections

    async def create(
        self, name: str, *, tenant: int, user: str, scopes: Sequence[str], seconds: float | None = None
    ) -> str:
        """Make a key, good for `seconds` (None: for ever), and return it: the only time that it is seen.

        Raises Conflict if a key of that name is in use.
        """
        async with self.connections.use(Owner(tenant)) as connection:
            if await (await connection.execute(NAMED, {"tenant": tenant, "name": name})).fetchone():
                raise Conflict(
                    f"There is a key {name!r} already; rotate it, or choose another name.",
                    field="name",
                    value=name,
                )
            return await _added(connection, name, Owner(tenant, user), scopes, seconds)

    async def rotate(self, name: str, *, tenant: int | None = None, grace: float = 0.0) -> str:
        """A new key under the same name and rights, good for as long; the former ends after `grace` seconds.

        Raises NotFound, and BadInput where several tenants have a key of that name and none is given.
        """
        tenant = await self._whose(name) if tenant is None else tenant
        named: Json = {"tenant": tenant, "name": name, "seconds": grace}
        async with self.connections.use(Owner(tenant)) as connection, connection.transaction():
            row = await (await connection.execute(NAMED, named)).fetchone()
            if row is None:
                raise unknown(name)
            await connection.execute(EXPIRE, named)
            return await _added(connection, name, Owner(tenant, row[0]), row[1], row[2])

    async def disable(self, name: str, *, tenant: int | None = None) -> None:
        """From now on (elsewhere within seconds) the key opens nothing. Raises as `rotate` does."""
        tenant = await self._whose(name) if tenant is None else tenant
        async with self.connections.use(Owner(tenant)) as connection:
            cursor = await connection.execute(DISABLE, {"tenant": tenant, "name": name})
        if cursor.rowcount == 0:
            raise unknown(name)

    async def _whose(self, name: str) -> int:
        """The tenant of the keys in use with that name."""
        async with self.connections.background() as connection:
            rows = await (await connection.execute(WHOSE, {"name": name})).fetchall()
        if not rows:
            raise unknown(name)
        if len(rows) > 1:
            tenants = ", ".join(str(row[0]) for row in rows)
            raise BadInput(
                f"There is a key {name!r} in each of the tenants {tenants}; say which: --tenant {rows[0][0]}.",
                field="tenant",
            )
        return int(rows[0][0])

    async def listed(self, *, tenant: int | None = None) -> list[Json]:
        """Every key with what it may do and when it was used last."""
        async with self.connections.background() as connection:
            rows = await (await connection.execute(LISTED, {"tenant": tenant})).fetchall()
        return [_shown(row) for row in rows]

    async def find(self, key: str) -> Key | None:
        """Whose key this is, if it is one and may be used. Raises DatabaseDown."""
        digest = digest_of(key)
        async with self.connections.background() as connection:
            row = await (await connection.execute(USED, {"digest": digest})).fetchone()
        if row is None:
            return None
        number, tenant, user, name, scopes, stored = row
        return Key(str(number), tenant, user, name, frozenset(scopes), bytes(stored))

    async def any(self) -> bool:
        """Whether a key is in use at all. Raises DatabaseDown."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(ANY)).fetchone()
        return bool(row and row[0])


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def unknown(name: str) -> NotFound:
    return NotFound(f"There is no key {name!r} in use.", field="name", value=name)


async def _added(
    connection: Any, name: str, owner: Owner, scopes: Sequence[str], seconds: float | None
) -> str:
    key = PREFIX + secrets.token_urlsafe(32)
    parameters = {
        "id": str(uuid_utils.uuid7()),
        "tenant": owner.tenant,
        "user": owner.user,
        "name": name,
        "digest": digest_of(key),
        "scopes": list(scopes),
        "seconds": seconds,
    }
    await connection.execute(ADD, parameters)
    return key


def _shown(row: Any) -> Json:
    tenant, user, name, scopes, disabled, expired, expires, used, created = row
    return {
        "tenant": tenant,
        "user": user,
        "name": name,
        "scopes": list(scopes),
        "status": "disabled" if disabled else "expired" if expired else "in use",
        "expires_at": expires and expires.isoformat(timespec="seconds"),
        "last_used_at": used and used.isoformat(timespec="seconds"),
        "created_at": created.isoformat(timespec="seconds"),
    }
