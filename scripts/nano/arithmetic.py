"""Two-digit addition and subtraction, with the written method as the thought."""

import random
import zlib
from dataclasses import dataclass

from scripts.nano.words import Split

LARGEST = 99

SUMS = (
    "What is {a}+{b}?|What is {a} + {b}?|{a}+{b}|{a} + {b}|{a}+{b}=|{a} + {b} = ?|{a} plus {b}|What is {a} plus {b}?|"
    "What's {a}+{b}?|what is {a} + {b}|Add {a} and {b}.|Add {a} to {b}|Calculate {a} + {b}.|Compute {a}+{b}|"
    "What is the sum of {a} and {b}?|How much is {a} + {b}?|How much is {a} plus {b}?|Please add {a} and {b}|"
    "Can you tell me {a}+{b}?|Solve {a} + {b}.|I have {a} apples and get {b} more. How many do I have?|"
    "There are {a} red and {b} blue balls. How many balls are there?|{a} plus {b} equals what?|"
    "Tell me what {a} + {b} is."
).split("|")

DIFFERENCES = (
    "What is {a}-{b}?|What is {a} - {b}?|{a}-{b}|{a} - {b}|{a}-{b}=|{a} - {b} = ?|{a} minus {b}|What is {a} minus {b}?|"
    "What's {a}-{b}?|what is {a} - {b}|Subtract {b} from {a}.|Take {b} away from {a}|Calculate {a} - {b}.|"
    "Compute {a}-{b}|How much is {a} - {b}?|How much is {a} minus {b}?|Please subtract {b} from {a}|"
    "Can you tell me {a}-{b}?|Solve {a} - {b}.|{a} minus {b} equals what?|Tell me what {a} - {b} is."
).split("|")

LEFTOVERS = (
    "I have {a} apples and give away {b}. How many are left?|There were {a} birds and {b} flew away. How many stayed?|"
    "What is the difference between {a} and {b}?"
).split("|")


@dataclass(frozen=True)
class Problem:
    """`a + b` or `a - b`, 0 to 99 each."""

    a: int
    op: str
    b: int

    @property
    def answer(self) -> str:
        return str(self.a + self.b if self.op == "+" else self.a - self.b)

    @property
    def held_out(self) -> bool:
        """One problem in eight is never trained on, in no phrasing."""
        return zlib.crc32(f"{self.a}{self.op}{self.b}".encode()) % 8 == 0 and max(self.a, self.b) > 9

    @property
    def thought(self) -> str:
        return _sum(self.a, self.b) if self.op == "+" else _difference(self.a, self.b)


def problem(rng: random.Random, split: Split) -> Problem:
    """A problem of the asked part; mostly two digits, sometimes one."""
    while True:
        a, b = (rng.randint(0, 9) if rng.random() < 0.15 else rng.randint(10, LARGEST) for _ in range(2))
        drawn = Problem(a, rng.choice("+-"), b)
        if drawn.op == "-" and a < b and rng.random() < 0.6:
            drawn = Problem(b, "-", a)
        if drawn.held_out == (split == "eval"):
            return drawn


def question(rng: random.Random, task: Problem) -> str:
    """One of many ways to ask it."""
    phrases = SUMS if task.op == "+" else DIFFERENCES
    if task.op == "-" and task.a >= task.b and rng.random() < 0.12:
        phrases = LEFTOVERS
    return rng.choice(phrases).format(a=task.a, b=task.b)


def _sum(a: int, b: int) -> str:
    tens, ones = divmod(a, 10), divmod(b, 10)
    low = tens[1] + ones[1]
    carry = low // 10
    first = f"{a}+{b}: {tens[1]}+{ones[1]}={low}, write {low % 10} carry {carry}"
    return f"{first}\n{tens[0]}+{ones[0]}+{carry}={tens[0] + ones[0] + carry}\n{a + b}"


def _difference(a: int, b: int) -> str:
    if a < b:
        return f"{a}-{b}: {a}<{b}, turn around\n{_difference(b, a)}\nminus: {a - b}"
    (high_a, low_a), (high_b, low_b) = divmod(a, 10), divmod(b, 10)
    borrow = int(low_a < low_b)
    first = f"{a}-{b}: {low_a + 10 * borrow}-{low_b}={low_a + 10 * borrow - low_b}, borrow {borrow}"
    return f"{first}\n{high_a}-{high_b}-{borrow}={high_a - high_b - borrow}\n{a - b}"
