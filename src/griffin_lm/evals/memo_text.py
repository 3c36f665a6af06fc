"""The words of fledgling's memos: a marked note, the questions about it, the answers.

    <note>The name is Emma, the place is Bath, the number is 47.</note>
    <user>What is the place?<model> Bath<end>
    <user>What is the name?<model> There is no such note.<end>       (when there was no note)

Training and measurement share these words; the first token of an answer decides if it is right.
"""

from collections.abc import Callable

from ..errors import DataError

FIELDS = ("name", "place", "number")
MARKS = ("<user>", "<model>", "<end>", "<note>", "</note>")
NO_NOTE = " There is no such note.<end>"

_NAMES = """
Emma Jane John Mary Anne Kate Lucy Rose Ruth Alice Clara Ellen Grace Helen Laura Sarah Sophy
Fanny Maria Julia Diana Amy Ada Ida Eva Ella Edith Ethel Agnes Bella Betty Caroline Charlotte
Cecil Dora Dorothy Effie Eliza Elsie Emily Esther Flora Flossie Gertrude Hannah Harriet Hester
Isabel Janet Jenny Judith Lily Louisa Mabel Margaret Martha Matilda Maud Mercy Milly Minnie Nancy
Nelly Nora Olive Patty Peggy Phoebe Polly Rachel Rebecca Rosa Sally Susan Violet Adam Albert
Alfred Amos Andrew Arthur Ben Charles Daniel David Dick Edgar Edmund Edward Ernest Felix Francis
Frank Frederick George Gilbert Giles Harold Harry Henry Herbert Hugh Jack Jacob James Jasper
Jerome Joe Joseph Lewis Luke Mark
"""
_PLACES = """
London Paris Rome Bath York Oxford Cambridge Dover Dublin Leeds Bristol Brighton Berlin Vienna
Venice Florence Naples Milan Genoa Geneva Madrid Lisbon Cairo Athens Moscow Warsaw Prague Dresden
Cologne Brussels Calais Lyons Boston Chicago Calcutta Bombay Delhi Madras Malta Cyprus Crete
Corfu Sicily Malaga Seville Toledo Turin Pisa Parma Padua Verona Ravenna Trieste Tunis Algiers
Tangier Jamaica Havana Lima Quebec Toronto Montreal Sydney Melbourne Perth Glasgow Leith Belfast
Cork Derby Durham Exeter Ely Epsom Hull Kent Lincoln Norwich Plymouth Salisbury Surrey Sussex
Truro Wells Windsor Bergen Oslo Riga Danzig Leipzig Munich Basle Berne Lucerne Nice Cannes Monaco
Bordeaux Nantes Rouen Dijon Rheims Brest Ghent Bruges Antwerp Utrecht Leyden Delft Hague Kiel
Lubeck
"""

VALUES: dict[str, list[str]] = {
    "name": [*_NAMES.split()],
    "place": [*_PLACES.split()],
    "number": [str(number) for number in range(10, 100)],
}


def note_text(values: dict[str, str]) -> str:
    """The note as it stands in prose: "<note>The name is Emma, the place is Bath.</note>"."""
    facts = ", ".join(f"the {field} is {value}" for field, value in values.items())
    return f"<note>T{facts[1:]}.</note>"


def question_text(field: str) -> str:
    """A question in fledgling's turn template, up to where the answer begins."""
    return f"<user>What is the {field}?<model>"


def single_pieces(encode: Callable[[str], list[int]]) -> dict[str, dict[str, int]]:
    """Per field, the values that are one token both in a note and in an answer, with its id.

    encode: text with markers to ids, without BOS. Values that are not one token are left out.
    Raises DataError for a vocabulary in which a field has none, or "no such note" begins like one.
    """
    found: dict[str, dict[str, int]] = {}
    for field in FIELDS:
        question = encode(question_text(field))
        found[field] = {}
        for value in VALUES[field]:
            answer = encode(f"{question_text(field)} {value}<end>")[len(question) :]
            if len(answer) == 2 and answer[0] in encode(note_text({field: value})):
                found[field][value] = answer[0]
        if len(found[field]) < 2:
            raise DataError(
                f"this vocabulary has no single tokens for the values of {field!r}: memo recall is "
                "for fledgling and models trained by its recipe"
            )
        if encode(question_text(field) + NO_NOTE)[len(question)] in found[field].values():
            raise DataError("the answer without a note begins like a value")
    return found
