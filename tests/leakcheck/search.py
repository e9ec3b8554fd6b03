"""Finds planted secrets, in every form and in every file, without any code of the program."""

import base64
import html
import json
import sqlite3
import subprocess
import urllib.parse

import duckdb

# Both ends of a secret are letters and digits, which no escape changes: an escaped or cut secret still shows one of them.
END = 14


def plain_forms(secret):
    """Forms of a secret in words, by their names."""
    quoted = urllib.parse.quote(secret, safe="")
    first, *rest = quoted.split("%")
    lower = "%".join([first] + [part[:2].lower() + part[2:] for part in rest])
    inside = json.dumps(secret)[1:-1]
    return {
        "plain": secret,
        "url": quoted,
        "url in lower case": lower,
        "url twice": urllib.parse.quote(quoted, safe=""),
        "json": inside,
        "json with slashes escaped": inside.replace("/", "\\/"),
        "html": html.escape(secret),
        "base64": base64.b64encode(secret.encode()).decode(),
        "base64 for urls": base64.urlsafe_b64encode(secret.encode()).decode(),
        "base64 of credentials": base64.b64encode(b"user:" + secret.encode() + b"@").decode(),
    }


def needles(secret):
    """Byte strings one of which stands in every form."""
    found = {secret[:END].encode(), secret[-END:].encode()}
    for text in (secret, secret[:END], secret[-END:]):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for shift in range(3):
                padded = b"\0" * shift + text.encode()
                inner = encode(padded)[-(-shift * 8 // 6):len(padded) * 8 // 6]
                # The part that is the same in every longer text.
                found.add(inner)
    return found


class Search:
    def __init__(self, secrets):
        self.needles = [(name, needle) for name, secret in secrets.items() for needle in needles(secret)]

    def bytes(self, content):
        """Names of the secrets in it."""
        return {name for name, needle in self.needles if needle in content}

    def text(self, text):
        return self.bytes(text.encode("utf-8", "surrogatepass"))

    def line(self, line):
        """Of a record, also what is written in base64 or escaped."""
        found = self.bytes(line)
        try:
            values = [json.loads(line)]
        except ValueError:
            return found
        while values:
            value = values.pop()
            if isinstance(value, dict):
                if isinstance(value.get("b64"), str):
                    found |= self.bytes(base64.b64decode(value["b64"]))
                values.extend(value.values())
                values.extend(value)
            elif isinstance(value, list):
                values.extend(value)
            elif isinstance(value, str):
                found |= self.text(value)
        return found

    def file(self, path):
        content = path.read_bytes()
        found = self.bytes(content)
        if content[:4] == b"\x28\xb5\x2f\xfd":
            # An open segment has no end: what comes out before the complaint is what is there.
            unpacked = subprocess.run(["zstd", "-dcq"], input=content, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            found |= self.bytes(unpacked)
            for line in unpacked.splitlines():
                found |= self.line(line)
        elif content[:16] == b"SQLite format 3\0":
            found |= self.database(path)
        elif content[:4] == b"PAR1":
            found |= self.parquet(path)
        elif path.suffix in (".json", ".jsonl", ".csv", ".log", ".toml"):
            for line in content.splitlines():
                found |= self.line(line)
        return found

    def database(self, path):
        """A long value may lie on several pages: only as a whole does it show."""
        found = set()
        with sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            for table in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        if isinstance(value, str):
                            found |= self.line(value.encode("utf-8", "surrogatepass"))
                        elif isinstance(value, bytes):
                            found |= self.bytes(value)
        database.close()
        return found

    def parquet(self, path):
        """Its pages are packed: only unpacked do they show what is in a cell, and in the words beside the schema."""
        with duckdb.connect() as database:
            lines = database.execute("SELECT to_json(t)::VARCHAR FROM read_parquet(?) AS t", [str(path)]).fetchall()
            lines += database.execute("SELECT to_json(t)::VARCHAR FROM parquet_kv_metadata(?) AS t", [str(path)]).fetchall()
        return set().union(*(self.line(line.encode("utf-8", "surrogatepass")) for line, in lines))

    def tree(self, directory):
        """Where secrets stand below a directory: pairs of file and secret."""
        files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
        return [(str(path.relative_to(directory)), name) for path in files for name in sorted(self.file(path))]
