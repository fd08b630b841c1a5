"""A registry with administrators of every kind, and what of it a change could change."""

import copy
import shutil
import sqlite3


def secret_file(directory, made, name):
    path = directory / name
    path.write_text(made["key"] + "\n")
    path.chmod(0o600)
    return path


class Shop:
    """A registry with administrators: of each the file with his key."""

    def __init__(self, keyloader, place):
        self.run = keyloader
        self.files = {}
        self.ids = {}
        for owner, team in (("acme", "shop"), ("umbrella", "labs")):
            keyloader("owner", "create", owner, "--team", team, "--no-publish")
        for name, *options in (("alice", "--role", "admin"), ("carol", "--role", "admin"),
                               ("bob", "--role", "issue", "--may-grant", "orders:*", "--team", "shop"),
                               ("sam", "--role", "support", "--may-grant", "orders:*"), ("vic", "--role", "view"),
                               ("tess", "--role", "admin", "--may-grant", "orders:*", "--team", "shop")):
            made = keyloader.json("admin", "create", "--owner", name, "--create-owner", "--no-publish",
                                  *options)
            self.files[name] = secret_file(place, made, name)
            self.ids[name] = made["id"]

    def moved_to(self, tool):
        """The same in the directory of `tool`, which is not there yet; much quicker than to make it again."""
        shutil.copytree(self.run.dir, tool.dir, symlinks=True, copy_function=shutil.copy2)
        with sqlite3.connect(tool.dir / "registry.db") as database:
            database.execute("UPDATE info SET home_directory = ?", (str(tool.dir.resolve()),))
        database.close()
        made = copy.copy(self)
        made.run, made.files, made.ids = tool, dict(self.files), dict(self.ids)
        return made

    def as_(self, who, *arguments, status=0, **more):
        """A command by an administrator, or by whoever is on the machine."""
        by = [] if who == "local" else ["--key-file", self.files[who]]
        return self.run(*arguments, *by, status=status, **more)


def state(tool):
    """All that a change could change: the registry's tables, but for the audit and the requests."""
    with sqlite3.connect(tool.dir / "registry.db") as database:
        tables = [name for name, in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
                  if not name.startswith(("audit", "approvals", "sqlite_", "schema_"))]
        contents = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    database.close()
    assert {"info", "owners", "plans", "roles", "keys", "key_roles", "key_limits", "key_adjustments"} <= contents.keys()
    return contents
