"""Writes all changes that cargo-mutants makes up into one copy of the project, each behind a switch, so that it is built once.

A change to code becomes a choice in it: `a < b` is read once and compared as `crate::mutant::on(7)` says, the body of a function begins
with `if crate::mutant::on(8) { return Ok(()); }`. Where the compiler does not take a choice in one form it is tried in the next; where
it does not take the change itself, the change is none that could be built. What is in no expression that can choose (a constant, a
condition with `let`) has no switch and is left to the slow way.
"""

import json
import subprocess
from bisect import bisect_right
from dataclasses import dataclass, field

import tree_sitter_rust
from tree_sitter import Language, Parser

ON = "crate::mutant::on({})"
COMPARED = {"==", "!=", "<", "<=", ">", ">="}


@dataclass
class Site:
    """A place with the changes that can be made there: `arms` has what each writes, by its number."""

    kind: str
    start: int
    end: int
    node: object
    arms: dict = field(default_factory=dict)
    form: int = 0

    def choice(self, arms, otherwise):
        pieces = []
        for number, text in arms.items():
            pieces += [f"if {ON.format(number)} {{ ", ("arm", number, text), " } else "]
        return [*pieces, "{ ", *otherwise, " }"]

    def pieces(self):
        """What stands here now; nothing when there is no further form."""
        return getattr(self, self.kind)()

    def body(self):
        arms = [[f"if {ON.format(n)} {{ ", ("arm", n, [f"return {text};" if text != "()" else "return;"]), " } "] for n, text in self.arms.items()]
        return [[piece for arm in arms for piece in arm]][self.form : self.form + 1]

    def binary(self):
        left, right = (self.node.child_by_field_name(name) for name in ("left", "right"))
        operator = self.node.child_by_field_name("operator").text.decode()
        if operator in ("&&", "||"):
            (number,) = self.arms
            stay = ON.format(number) if operator == "&&" else f"!{ON.format(number)}"
            return [["({ let __left: bool = ", left, f"; if __left != {stay} {{ ", right, " } else { __left } })"]][self.form : self.form + 1]

        def by(take, give):
            arms = {n: [f"{give}__left {text} {give}__right"] for n, text in self.arms.items()}
            choice = self.choice(arms, [f"{give}__left {operator} {give}__right"])
            return [f"(match ({take}(", left, f"), {take}(", right, ")) { (__left, __right) => { ", *choice, " } })"]

        forms = [by("&", "*"), by("", "")] if operator in COMPARED else [by("", "")]
        return forms[self.form : self.form + 1]

    def assign(self):
        left, right = (self.node.child_by_field_name(name) for name in ("left", "right"))
        operator = self.node.child_by_field_name("operator").text.decode()
        arms = {n: [left.text.decode(), f" {text} __right"] for n, text in self.arms.items()}
        choice = self.choice(arms, [left, f" {operator} __right"])
        return [["{ let __right = ", right, "; ", *choice, " }"]][self.form : self.form + 1]

    def unary(self):
        (number,) = self.arms
        inner = self.node.children[-1]
        plain = self.choice({number: [inner.text.decode()]}, [self.node.children[0].text.decode(), inner])
        return [[f"({ON.format(number)} != !", inner, ")"], ["(", *plain, ")"]][self.form : self.form + 1]

    def guard(self):
        return [["(", *self.choice({n: [text] for n, text in self.arms.items()}, [self.node]), ")"]][self.form : self.form + 1]

    def arm(self):
        (number,) = self.arms
        return [[f" if !{ON.format(number)}"]][self.form : self.form + 1]

    def value(self):
        (number,) = self.arms
        fields = self.node.parent
        name = fields.parent.child_by_field_name("name").text.decode()
        base = next(child for child in fields.children if child.type == "base_field_initializer").children[-1].text.decode()
        shorthand = self.node.type == "shorthand_field_initializer"
        what = self.node.text.decode() if shorthand else self.node.child_by_field_name("field").text.decode()
        value = self.node if shorthand else self.node.child_by_field_name("value")
        arm = [f"let base: {name} = {base}; base.{what}"]
        return [[f"{what}: ", *self.choice({number: arm}, [value])]][self.form : self.form + 1]


def offsets(text, mutant):
    """Where it begins and ends, in bytes."""
    lines = text.splitlines(keepends=True)
    places = (mutant["span"]["start"], mutant["span"]["end"])
    return [len("".join([*lines[: p["line"] - 1], lines[p["line"] - 1][: p["column"] - 1]]).encode()) for p in places]


def nodes(root):
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += node.children


class Source:
    """A file, its places, and what of the file with switches belongs to which."""

    def __init__(self, path, mutants):
        self.path, self.text = path, path.read_bytes()
        root = Parser(Language(tree_sitter_rust.language())).parse(self.text).root_node
        self.sites, self.functions, self.without = [], [], []
        operators, unary, arms, guards, fields = {}, {}, {}, {}, {}
        for node in nodes(root):
            match node.type:
                case "binary_expression":
                    operators[node.child_by_field_name("operator").start_byte] = ("binary", node)
                case "compound_assignment_expr":
                    operators[node.child_by_field_name("operator").start_byte] = ("assign", node)
                case "unary_expression":
                    unary[node.start_byte] = node
                case "match_arm":
                    pattern = node.child_by_field_name("pattern")
                    condition = pattern.child_by_field_name("condition")
                    arms[pattern.start_byte] = (pattern, condition)
                    if condition:
                        guards[condition.start_byte] = condition
                case "field_initializer" | "shorthand_field_initializer":
                    fields[node.start_byte] = node
                case "function_item":
                    self.functions.append((node.start_byte, node.end_byte))
        made = {}

        def place(kind, start, end, node, number, text):
            site = made.setdefault((kind, start, end), Site(kind, start, end, node))
            site.arms[number] = text
            self.sites.append(site) if site not in self.sites else None

        decoded = self.text.decode()
        for number, mutant in mutants.items():
            start, _ = offsets(decoded, mutant)
            text = mutant["replacement"]
            match mutant["genre"]:
                # The function would have two types to return.
                case "FnValue" if text.startswith("::std::iter::"):
                    self.without.append(number)
                case "FnValue":
                    place("body", start, start, None, number, text)
                case "BinaryOperator" if start in operators:
                    kind, node = operators[start]
                    place(kind, node.start_byte, node.end_byte, node, number, text)
                case "UnaryOperator" if start in unary:
                    node = unary[start]
                    place("unary", node.start_byte, node.end_byte, node, number, text)
                case "MatchArmGuard" if start in guards and guards[start].type not in ("let_chain", "let_condition"):
                    node = guards[start]
                    place("guard", node.start_byte, node.end_byte, node, number, text)
                case "MatchArm" if start in arms and arms[start][1] is None:
                    place("arm", arms[start][0].end_byte, arms[start][0].end_byte, arms[start][0], number, text)
                case "MatchArm" if start in arms and arms[start][1].type not in ("let_chain", "let_condition"):
                    node = arms[start][1]
                    place("guard", node.start_byte, node.end_byte, node, number, "false")
                case "StructField" if start in fields:
                    node = fields[start]
                    place("value", node.start_byte, node.end_byte, node, number, text)
                case _:
                    self.without.append(number)

    def live(self):
        return [site for site in self.sites if site.arms and site.pieces()]

    def write(self):
        """The file with its switches; remembers which bytes are whose."""
        # What begins at one byte: first what is put in there, then the longer; a guard that is one expression has it within.
        order = sorted(self.live(), key=lambda site: (site.start, site.end > site.start, -site.end, site.kind != "guard"))
        out, self.owned, length = [], [], 0

        def put(piece):
            nonlocal length
            piece = piece if isinstance(piece, bytes) else piece.encode()
            out.append(piece)
            length += len(piece)

        def region(start, end, inside):
            at, skip = start, -1
            for k, site in enumerate(inside):
                if site.start < at or k <= skip:
                    continue
                put(self.text[at : site.start])
                within = [other for other in inside[k + 1 :] if site.start <= other.start and other.end <= site.end and site.end > site.start]
                began = length
                show(site, site.pieces()[0], within)
                self.owned.append((began, length, site, None))
                at = site.end
            put(self.text[at:end])

        def show(site, pieces, within):
            for piece in pieces:
                if isinstance(piece, str):
                    put(piece)
                elif isinstance(piece, tuple):
                    began = length
                    for text in piece[2] if isinstance(piece[2], list) else [piece[2]]:
                        put(text) if isinstance(text, str) else region(text.start_byte, text.end_byte, [])
                    self.owned.append((began, length, site, piece[1]))
                else:
                    inner = [other for other in within if piece.start_byte <= other.start and other.end <= piece.end_byte]
                    region(piece.start_byte, piece.end_byte, inner)

        region(0, len(self.text), order)
        self.path.write_bytes(b"".join(out))

    def owner(self, start, end):
        """The smallest place that has these bytes of what was written, and the change if they are its own."""
        around = [entry for entry in self.owned if entry[0] <= start and end <= entry[1]]
        return min(around, key=lambda entry: (entry[1] - entry[0], entry[3] is None))[2:] if around else None


def errors(tree):
    args = ["cargo", "check", "--locked", "--quiet", "--lib", "--message-format=json"]
    check = subprocess.run(args, cwd=tree, capture_output=True, text=True)
    messages = [json.loads(text) for text in check.stdout.splitlines() if text.startswith("{")]
    found = [m["message"] for m in messages if m.get("message", {}).get("level") == "error" and m["message"]["spans"]]
    return check.returncode, found, check.stderr


def written(tree, mutants):
    """Writes the switches. Which changes have one, which could not be built, and which have none, by number."""
    lib = tree / "src/lib.rs"
    lib.write_text(lib.read_text().rstrip("\n") + "\n#[doc(hidden)]\npub mod mutant;\n")
    (tree / "src/mutant.rs").write_bytes((tree / "tests/mutants/switch.rs").read_bytes())
    numbered = dict(enumerate(mutants))
    sources = {file: Source(tree / file, {n: m for n, m in numbered.items() if m["file"] == file}) for file in {m["file"] for m in mutants}}
    without = {number for source in sources.values() for number in source.without}
    unviable = set()
    for turn in range(40):
        for source in sources.values():
            source.write()
        code, found, said = errors(tree)
        if code == 0:
            break
        if not found:
            raise SystemExit(f"error: the copy with switches does not build:\n{said}")
        forms, arms, lost = {}, {}, []
        for message in found:
            spans = sorted(message["spans"], key=lambda span: not span["is_primary"])
            owners = [(s, sources[s["file_name"]].owner(s["byte_start"], s["byte_end"])) for s in spans if s["file_name"] in sources]
            owners = [owner for _, owner in owners if owner]
            if not owners:
                lost.append(message)
                continue
            site, number = owners[0]
            (forms if number is None else arms).setdefault(id(site), []).append((site, number))
        print(f"turn {turn}: {len(found)} errors, {len(forms)} forms, {len(arms)} changes, {len(lost)} others", flush=True)
        if not forms and not arms:
            raise SystemExit("error: the copy with switches does not build:\n" + "\n".join(m["rendered"] for m in lost[:5]))
        for key, entries in forms.items():
            site = entries[0][0]
            site.form += 1
            if not site.pieces():
                without |= site.arms.keys()
                site.arms = {}
        for key, entries in arms.items():
            for site, number in entries:
                if key not in forms and number in site.arms:
                    unviable.add(number)
                    del site.arms[number]
    else:
        raise SystemExit("error: the copy with switches does not build after 40 turns")
    switched = {number for source in sources.values() for site in source.live() for number in site.arms}
    texts = "".join(source.path.read_text() for source in sources.values())
    if lost := [number for number in switched if ON.format(number) not in texts]:
        raise SystemExit(f"error: changes without a switch: {lost}")
    return switched, unviable, without
