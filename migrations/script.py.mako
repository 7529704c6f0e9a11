"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Look before adding: vantage6 itself may have added a column of its model."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """Not needed: stock vantage6 works with the additional columns and tables, and would lose what they hold."""
    raise NotImplementedError("A rollback to stock vantage6 needs no downgrade of the database.")
