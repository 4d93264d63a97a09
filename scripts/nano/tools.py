"""Tools that a model may call, and sentences that ask for a call with known arguments.

Two sorts: everyday tools with natural phrases, and drawn ones whose names, parameters and values nobody
has seen, asked for by naming their parameters.
"""

import random
import re
from dataclasses import dataclass
from typing import Any

from scripts.nano import words
from scripts.nano.values import TEXT_KINDS, Value, draw, schema_type
from scripts.nano.words import Split

Arguments = dict[str, Value]


@dataclass(frozen=True)
class Parameter:
    """`slot` is the parameter's name in those sentences, `name` the one this tool declares."""

    slot: str
    name: str
    kind: str
    required: bool
    description: str | None = None

    def schema(self) -> dict[str, Any]:
        described = {"description": self.description} if self.description else {}
        enum = {"enum": self.kind.split(",")} if "," in self.kind else {}
        return {"type": schema_type(self.kind), **described, **enum}

    @property
    def said(self) -> str:
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Tool:
    """A tool as it is declared. `sentences` are an everyday tool's phrases; a drawn one has a `task` (verb, noun)."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    sentences: tuple[str, ...] = ()
    task: tuple[str, str] = ("", "")
    lists_required: bool = True

    def declaration(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        schema: dict[str, Any] = {"type": "object", "properties": {p.name: p.schema() for p in self.parameters}}
        if self.lists_required and any(p.required for p in self.parameters):
            schema["required"] = [p.name for p in self.parameters if p.required]
        function = {"name": self.name, "description": self.description, "parameters": schema}
        return {"type": "function", "function": function}

    def request(self, rng: random.Random, split: Split) -> tuple[str, Arguments]:
        """A sentence that asks for this tool, and the arguments that it gives, by name."""
        sentence, arguments = _natural(rng, self, split) if self.sentences else _labelled(rng, self, split)
        return sentence, dict(sorted(arguments.items(), key=lambda pair: pair[0].lower()))


@dataclass(frozen=True)
class Family:
    """One block of data/everyday_tools.txt."""

    names: list[str]
    descriptions: list[str]
    parameters: list[str]
    sentences: list[str]
    held_out: bool


def _families() -> list[Family]:
    families = []
    for block in (words.DATA / "everyday_tools.txt").read_text().strip().split("\n\n")[1:]:
        names, descriptions, parameters, *sentences = (line.strip() for line in block.split("\n"))
        families.append(
            Family(
                names.removeprefix("held out: ").split("|"),
                descriptions.split("|"),
                [] if parameters == "-" else parameters.split(),
                [sentence.removeprefix("> ") for sentence in sentences],
                names.startswith("held out: "),
            )
        )
    return families


FAMILIES = _families()
_SLOT = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^\]]*)\]")


def everyday_tool(rng: random.Random, *, held_out: bool = False) -> Tool:
    """An everyday tool, under one of its names, with some of its optional parameters."""
    family = rng.choice([family for family in FAMILIES if family.held_out == held_out])
    keep = rng.random()
    parameters = [_table_parameter(rng, text) for text in family.parameters if not _optional(text) or keep < 0.6]
    slots = {parameter.slot for parameter in parameters}
    sentences = tuple(s for s in family.sentences if set(_SLOT.findall(_OPTIONAL.sub("", s))) <= slots)
    description = "" if rng.random() < 0.1 else rng.choice(family.descriptions)
    return Tool(rng.choice(family.names), description, tuple(parameters), sentences, lists_required=rng.random() < 0.85)


def _optional(text: str) -> bool:
    return text.split(":")[0].endswith("?")


def _table_parameter(rng: random.Random, text: str) -> Parameter:
    names, kind = text.split(":")
    choices = names.rstrip("?").split("/")
    name = choices[0] if rng.random() < 0.5 else rng.choice(choices)
    return Parameter(choices[0], name, kind, not names.endswith("?"), _parameter_description(rng, name, kind))


def _parameter_description(rng: random.Random, name: str, kind: str) -> str | None:
    said = name.replace("_", " ")
    if rng.random() < 0.5:
        return None
    if kind == "city" and rng.random() < 0.5:
        return rng.choice(["City name", "The city and state, e.g. San Francisco, CA", "The city, e.g. Paris", "A city"])
    if schema_type(kind) == "string" and rng.random() < 0.25:
        return f"The {said}, e.g. {draw(rng, kind, 'train')}"
    return rng.choice([f"The {said}", f"The {said}.", said.capitalize(), f"Which {said}", f"{said} to use"])


def _natural(rng: random.Random, tool: Tool, split: Split) -> tuple[str, Arguments]:
    by_slot = {parameter.slot: parameter for parameter in tool.parameters}
    arguments: Arguments = {}

    def optional(match: re.Match[str]) -> str:
        text, _, flag = match[1].partition("=>")
        needed = [flag] if flag else _SLOT.findall(text)
        if any(slot not in by_slot for slot in needed):
            return ""
        wanted = all(by_slot[slot].required for slot in needed) or rng.random() < 0.5
        if wanted and flag:
            arguments[by_slot[flag].name] = True
        return text if wanted else ""

    def filled(match: re.Match[str]) -> str:
        parameter = by_slot[match[1]]
        arguments[parameter.name] = draw(rng, parameter.kind, split)
        return str(arguments[parameter.name])

    sentence = _SLOT.sub(filled, _OPTIONAL.sub(optional, rng.choice(tool.sentences)))
    return _as_typed(rng, sentence), arguments


def _as_typed(rng: random.Random, sentence: str) -> str:
    if rng.random() < 0.2 and sentence[1:2].islower():
        sentence = sentence[0].lower() + sentence[1:]
    if rng.random() < 0.2:
        sentence = sentence.rstrip("?.")
    if rng.random() < 0.1:
        sentence = rng.choice(["Please ", "Hey, ", "OK, ", "Now ", "And now: ", "Hello! "]) + sentence
    return sentence


def drawn_tool(rng: random.Random, split: Split, *, taken: frozenset[str] = frozenset()) -> Tool:
    """A tool with a drawn name (none of the words `taken`) and one to three drawn parameters."""
    while True:
        noun = words.word(rng, "noun", split)
        if noun not in taken:
            break
    verb = words.made_up(rng, split) if rng.random() < 0.05 else rng.choice(words.VERBS)
    parameters = _drawn_parameters(rng, split)
    described = rng.choice([f"{verb.capitalize()} the {noun}.", f"{verb} a {noun}", f"Tool to {verb} {noun}", ""])
    return Tool(_name(rng, verb, noun), described, parameters, task=(verb, noun), lists_required=rng.random() < 0.85)


def _name(rng: random.Random, verb: str, noun: str) -> str:
    return rng.choice(
        [f"{verb}_{noun}"] * 6
        + [f"{noun}_{verb}", f"{verb}-{noun}", f"{noun}.{verb}", f"{verb}{noun.capitalize()}", noun]
    )


def _drawn_parameters(rng: random.Random, split: Split) -> tuple[Parameter, ...]:
    parameters: dict[str, Parameter] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 3, 3))):
        kind = rng.choice(["text"] * 5 + ["integer"] * 3 + ["boolean"] * 2 + ["number"])
        kind = rng.choice(TEXT_KINDS) if kind == "text" else kind
        pool = "switch" if kind == "boolean" else "label"
        name = words.word(rng, pool, split)
        parameters[name] = Parameter(name, name, kind, rng.random() < 0.75, _parameter_description(rng, name, kind))
    return tuple(parameters.values())


OPENINGS = (
    "{Verb} the {noun}|{Verb} a {noun}|Please {verb} the {noun}|Can you {verb} the {noun}|I want to {verb} a {noun}|"
    "{Verb} {noun}|Use {name}|Call {name}|Run {name}|Please call {name}|I need you to {verb} the {noun}|"
    "Use the tool {name}"
).split("|")

SAID = (
    "{label} {value}|{label} {value}|{label}: {value}|{label} = {value}|{label}={value}|{label} set to {value}|"
    "the {label} {value}|{value} as {label}|{value} as the {label}|a {label} of {value}|{name} {value}|{name}: {value}"
).split("|")

ON = "{label}|{label} on|{label}: true|{label} = true|{label} set to true|{name}=true|{label}: yes".split("|")
OFF = "no {label}|{label} off|{label}: false|{label} = false|{label} set to false|{name}=false|{label}: no".split("|")


def _labelled(rng: random.Random, tool: Tool, split: Split) -> tuple[str, Arguments]:
    verb, noun = tool.task
    wanted = [p for p in tool.parameters if p.required or rng.random() < 0.6]
    rng.shuffle(wanted)
    arguments = {parameter.name: draw(rng, parameter.kind, split) for parameter in wanted}
    opening = rng.choice(OPENINGS).format(Verb=verb.capitalize(), verb=verb, noun=noun, name=tool.name)
    if len(wanted) == 1 and schema_type(wanted[0].kind) == "string" and rng.random() < 0.5:
        bare = rng.choice([" for {x}", " of {x}", " in {x}", " named {x}", " called {x}", ' "{x}"', ": {x}", " {x}"])
        return opening + bare.format(x=arguments[wanted[0].name]) + rng.choice(["", ".", ""]), arguments
    clauses = [_clause(rng, parameter, arguments[parameter.name]) for parameter in wanted]
    if not clauses:
        return opening + rng.choice(["", ".", "", ", please"]), arguments
    separator = rng.choice([", ", " and ", ", ", ", with "])
    return opening + rng.choice([" with ", " with ", ": ", ", ", " using "]) + separator.join(clauses) + rng.choice(
        ["", "."]
    ), arguments


def _clause(rng: random.Random, parameter: Parameter, value: Value) -> str:
    label = parameter.said
    if isinstance(value, bool):
        return rng.choice(ON if value else OFF).format(label=label, name=parameter.name)
    said = f'"{value}"' if isinstance(value, str) and rng.random() < 0.3 else value
    return rng.choice(SAID).format(label=label, name=parameter.name, value=said)


def toolbox(rng: random.Random, split: Split, *, held_out: bool = False) -> tuple[Tool, list[Tool]]:
    """The tool that will be wanted, and one to three declared tools with that one among them."""
    wanted = everyday_tool(rng, held_out=held_out) if held_out or rng.random() < 0.5 else drawn_tool(rng, split)
    tools = [wanted]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        other = everyday_tool(rng) if rng.random() < 0.5 else drawn_tool(rng, split, taken=_words_of(tools))
        if not _alike(other, tools):
            tools.append(other)
    rng.shuffle(tools)
    return wanted, tools


def _words_of(tools: list[Tool]) -> frozenset[str]:
    return frozenset(part for tool in tools for part in [tool.task[1], *re.split(r"[_.-]", tool.name)])


def _alike(other: Tool, tools: list[Tool]) -> bool:
    """Whether a sentence could mean either: everyday tools of one family, or a shared word in the name."""
    mine = _words_of([other]) - {"", "get", "set", "find", "create", "add", "search", "book", "current", "the"}
    return any(mine & _words_of([tool]) or (other.sentences and other.sentences[0] in tool.sentences) for tool in tools)
