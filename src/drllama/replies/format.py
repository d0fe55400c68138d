"""The tables of attempts and batches, and what tells their file from others."""

from drllama.database import DatabaseKind

_MIGRATIONS = (
    (
        """CREATE TABLE attempts (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            model TEXT NOT NULL,
            prompt TEXT NOT NULL,
            prompt_sha256 TEXT NOT NULL,
            rollout INTEGER NOT NULL,
            request TEXT NOT NULL,
            reply TEXT,
            failure TEXT,
            finish TEXT,
            failure_kind TEXT,
            tokens_in INTEGER,
            tokens_out INTEGER,
            cost_usd REAL,
            seconds REAL,
            created_at TEXT NOT NULL,
            source TEXT NOT NULL,
            chosen INTEGER NOT NULL CHECK (chosen = 0 OR reply IS NOT NULL),
            CHECK ((reply IS NULL) <> (failure IS NULL))
        )""",
        "CREATE INDEX attempts_by_key ON attempts (key)",
        "CREATE UNIQUE INDEX one_chosen_reply ON attempts (key) WHERE chosen",
    ),
    (
        """CREATE TABLE batches (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            endpoint TEXT NOT NULL,
            server_id TEXT,
            state TEXT NOT NULL,
            num_requests INTEGER NOT NULL,
            num_replies INTEGER NOT NULL DEFAULT 0,
            num_failures INTEGER NOT NULL DEFAULT 0,
            num_strays INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL,
            sent_at TEXT
        )""",
        # Only what is out now: a request leaves with its attempt, so no request is in two batches at once.
        """CREATE TABLE batch_requests (
            number INTEGER PRIMARY KEY,
            batch TEXT NOT NULL REFERENCES batches (id),
            key TEXT NOT NULL UNIQUE,
            request TEXT NOT NULL
        )""",
        "CREATE INDEX requests_by_batch ON batch_requests (batch, number)",
    ),
)

REPLIES = DatabaseKind(name="store of replies", application_id=0x64724C4C, migrations=_MIGRATIONS)
