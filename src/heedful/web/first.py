"""The first time: somebody has to be able to come in."""

from sqlalchemy import select

from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.schema import accounts as table


def first_invitation(store: Store) -> str | None:
    """The secret of an admin's invitation where nobody has an account yet; else None."""
    with store.read() as connection:
        if connection.execute(select(table.c.id).limit(1)).first():
            return None
    return accounts.invite(store, author="heedful label serve", role="admin", days=1)
