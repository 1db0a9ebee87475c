"""Tables as Markdown and as LaTeX (booktabs), from the same cells."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip

Cells = Sequence[str]


class Table(NamedTuple):
    """A table of a report; a page of Markdown and a paper in LaTeX are written from the same ones."""

    title: str
    header: Cells
    rows: Sequence[Cells]

    @classmethod
    def by_name(cls, title: str, first: str, columns: Mapping[str, Mapping[str, str]]) -> "Table":
        """A row a name that a column has; what a column lacks is empty."""
        names = dict.fromkeys(name for column in columns.values() for name in column)
        rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
        return cls(title, [first, *columns], rows)

    def markdown(self) -> str:
        return f"## {self.title}\n\n{markdown_table(self.header, self.rows)}"

    def latex(self) -> str:
        return latex_table(self.header, self.rows, self.title)


def markdown_table(header: Cells, rows: Sequence[Cells]) -> str:
    lines = [header, *rows]
    text = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(header) + "|", *text[1:]])


def latex_table(header: Cells, rows: Sequence[Cells], caption: str) -> str:
    """A `table` for booktabs; everything is escaped."""
    body = [" & ".join(map(escape_latex, line)) + r" \\" for line in (header, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def escape_latex(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(letter, letter) for letter in text)
