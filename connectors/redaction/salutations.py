"""People who are named in a greeting, a signature or an introduction: "Hi Anna,", "Best, Tom".

What stands there is a name, or a company's, a product's, a role's. A frequent first name or a title
makes it certain; another word in capitals is a name often enough to ask a person about, and too seldom
to be replaced unasked.
"""

import re
from collections.abc import Iterator

from connectors.redaction.folding import folded_words
from connectors.redaction.name_words import (
    ALSO_WORDS,
    COMMON,
    GIVEN,
    MAILBOXES,
    ORGANISATIONS,
    ORGANISATIONS_OR_SURNAMES,
    PARTICLES,
    ROLES,
)
from connectors.redaction.names import person_key
from connectors.redaction.recognizer import Span

_MAX_ANSWER_WORDS = 3
_WORD = r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?"
_NAME = rf"(?P<name>{_WORD}(?: {_WORD}){{0,4}})"
_TITLE = (
    r"(?P<title>(?:(?:mr|mrs|ms|mx|miss|dr|prof|herrn?|frau|monsieur|madame|mme|mlle|señora?|sra?|signora?|signore"
    r"|sig|sig\.ra|dhr|mevr|mevrouw|meneer|senhora?|don|doña|sir)\.? )+)?"
)
_GREETING = re.compile(
    r"(?:^|[\n.!?] ?)(?:hi|hello|hey|hiya|dear|good (?:morning|afternoon|evening|day)|greetings|hallo|hi,|liebe[rs]?"
    r"|sehr geehrte[r]?|guten (?:tag|morgen|abend)|servus|moin|bonjour|bonsoir|salut|ch[eè]re?|hola"
    r"|buenos días|buenas (?:tardes|noches)|estimad[oa]|querid[oa]|ciao|gentile|buongiorno|car[oa]|hoi|beste"
    r"|geachte|olá|bom dia|boa tarde|prezad[oa]|thanks|thank you|many thanks|thx|danke|vielen dank|merci|gracias"
    rf"|grazie|bedankt)(?: so much| again| very much)?,? {_TITLE}{_NAME}",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(
    r"(?:^|[\n.!?,] ?)(?:(?:best|kind(?:est)?|warm(?:est)?|many)(?: regards| wishes)?|regards|(?:yours )?sincerely"
    r"|yours (?:truly|faithfully)|cheers|thanks(?: again| so much)?|thank you|many thanks|all the best|take care"
    r"|(?:viele|liebe|beste|herzliche|schöne|freundliche) grü(?:ß|ss)e|mit (?:freundlichen|besten|lieben) grü(?:ß|ss)en"
    r"|(?:liebe[nr]? )?gru(?:ß|ss)|mfg|lg|vg|danke|vielen dank|(?:bien )?cordialement|bien à vous|cdlt"
    r"|(?:meilleures )?salutations|merci(?: d'avance)?|(?:un |cordiales )?saludos?|atentamente|un abrazo|gracias"
    r"|(?:cordiali |distinti )?saluti|grazie|(?:met vriendelijke |vriendelijke |hartelijke )?groet(?:en|jes)?|mvg"
    r"|atenciosamente|abraços|obrigad[oa])[,.!]?(?: ?\n\s{0,8}|,? )"
    rf"(?P<dash>- ?)?{_TITLE}{_NAME}(?=[ ,.!]{{0,3}}(?:\n(?:[^\n]{{0,60}}\n?){{0,4}}\s*)?$)",
    re.IGNORECASE,
)
_DASH_SIGNATURE = re.compile(rf"(?:^|\n)\s{{0,8}}[-~]{{1,2}} ?(?P<title>){_NAME}[ ,.!]{{0,3}}$")
_INTRODUCTION = re.compile(
    r"(?<!\w)(?:(?:my|the|our) (?:(?:full|first|last) )?name(?: is|'s|:)|i am called|mein name ist|ich heiße"
    r"|je m'appelle|mon nom est|me llamo|mi nombre es|mi chiamo|il mio nome è|ik heet|mijn naam is"
    rf"|(?:o )?meu nome é|me chamo|jag heter),? (?P<sure>){_TITLE}{_NAME}"
    r"|(?<!\w)(?:i'm|i am|this is|ich bin|hier ist|je suis|soy|sono|ik ben|sou) (?P<title2>(?:(?:mr|mrs|ms|dr"
    r"|herr|frau)\.? )+)?(?P<name2>"
    rf"{_WORD}(?: {_WORD}){{0,2}})",
    re.IGNORECASE,
)
_ASKS_FOR_NAME = re.compile(
    r"\b(?:(?:your|the) (?:(?:full|first|last|complete) )?(?:and last )?name|who am i (?:speaking|chatting) (?:to|with)"
    r"|ihre[nm]? (?:vollen |vollständigen )?namen?|votre (?:nom|prénom)|(?:su|tu) nombre|il (?:suo|tuo) nome"
    r"|(?:uw|je) (?:volledige )?naam|seu nome)\b(?! (?:of|on the|is not))",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"\s{0,8}(?:(?:yes|yeah|sure|ok(?:ay)?|of course|certainly|ja|klar|natürlich|oui|bien sûr|sí|claro|si|certo"
    r"|sim|hi|hello|my name is|name is|it's|its|it is|i'm|im|i am|that's|that is|that would be|es ist|das ist|c'est|es|è|het is|it"
    rf"|the name is|full name|name)[,.!:]? ){{0,3}}(?P<title>(?:(?:mr|mrs|ms|dr|herr|frau)\.? )+)?{_NAME}",
    re.IGNORECASE,
)
_ENDS = re.compile(r"\s*(?:$|[,.!?:;\n)-])")
_EXTRA = frozenset(
    folded_words("""
    all everyone everybody folks guys again both there together zusammen leute alle allerseits tous toutes monde
    todos todas equipo équipe equipe support valued everyone's folks people friend freunde amigo amigos amis
    for so very much anyway though a bunch once too to you your ya u the it is this that i im for und pour por
    per voor für fürs et y e en je ich nous wir tutti squadra iedereen allemaal pessoal time help und
    using not here sorry looking trying calling writing having glad happy interested afraid sure ready unable
    able going just so very really about an order ok correct perfect awesome wonderful excellent regards wishes
    in advance advanced day night weekend evening goodbye bye see have take let we'll will would could
    actually yup yep yea yeah nope right oh nevermind never mind well hmm um uh ah wow shoot crap damn
    correction wait maybe perhaps probably certainly absolutely definitely exactly indeed alright alrighty
    ai computer robot machine anything something nothing
    unavailable unknown none na anonymous private confidential redacted name email
    """)
)
_NOT_NAMES = (
    ROLES
    | ORGANISATIONS
    | ORGANISATIONS_OR_SURNAMES
    | COMMON
    | MAILBOXES
    | (_EXTRA - frozenset({"will"}))
)
_COMPANY_WORDS = (ORGANISATIONS | ORGANISATIONS_OR_SURNAMES | ROLES) - frozenset(
    folded_words("a the an our of and from at in via bei chez for with")
)


class SalutationRecognizer:
    """Names in greetings, signatures, introductions, and in answers to "What is your name?".

    A span's ``rule`` says where it was found; it is not ``certain`` where the word is no frequent
    first name and stands behind no title.
    """

    supported_entities = ("NAME",)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        for found in _GREETING.finditer(text):
            yield from _read(text, found, "greeting")
        for pattern in (_SIGNATURE, _DASH_SIGNATURE):
            for found in pattern.finditer(text):
                yield from _read(text, found, "signature")
        for found in _INTRODUCTION.finditer(text):
            yield from _read_introduction(text, found)
        answer = _ANSWER.match(text) if context and _ASKS_FOR_NAME.search(context) else None
        if answer:
            yield from _read(text, answer, "answer")


def _read(text: str, found: re.Match[str], rule: str) -> Iterator[Span]:
    titled = bool(found["title"])
    words = _words(text, *found.span("name"), titled=titled, lower=rule == "answer")
    if not words:
        return
    start, end = words[0][0], words[-1][1]
    first = text[slice(*words[0])]
    certain = titled or _is_given(first)
    if rule == "answer":
        certain = certain or (
            len(words) > 1
            and all(text[at].isupper() for at, _ in words)
            and bool(_ENDS.match(text, end))
        )
    elif not certain and not first[0].isupper():
        return
    if certain or _ENDS.match(text, end):
        yield _span(text, start, end, rule, certain=certain)


def _read_introduction(text: str, found: re.Match[str]) -> Iterator[Span]:
    sure = found["sure"] is not None
    group, title = ("name", found["title"]) if sure else ("name2", found["title2"])
    words = _words(text, *found.span(group), titled=bool(title), whole=sure)
    if not words:
        return
    first = text[slice(*words[0])]
    capital = first[0].isupper()
    known = _is_given(first) and (capital or first.casefold() not in ALSO_WORDS)
    end = words[-1][1]
    if title or known or (sure and capital):
        yield _span(text, words[0][0], end, "introduction", certain=True)
    elif (sure or (capital and len(words) > 1)) and _ENDS.match(text, end):
        yield _span(text, words[0][0], end, "introduction", certain=False)


def _words(
    text: str, start: int, end: int, *, titled: bool, lower: bool = False, whole: bool = False
) -> list[tuple[int, int]]:
    """The words that may be the name, from the first on; none where the first cannot be one.

    ``lower``: further words may be in lower case. ``whole``: no other sentence begins behind the first.
    """
    spans = [
        (start + found.start(), start + found.end())
        for found in re.finditer(r"[^\s.]+", text[start:end])
    ]
    kept: list[tuple[int, int]] = []
    for at, (a, b) in enumerate(spans):
        word = text[a:b]
        plain = word.casefold()
        if plain in _NOT_NAMES:
            if not kept and plain in ORGANISATIONS_OR_SURNAMES and titled:
                kept.append((a, b))  # "Mr Bank"
                continue
            if kept and plain in _COMPANY_WORDS:
                return []  # "Acme Team"
            break
        particle = plain in PARTICLES and (titled or bool(kept))
        if kept and not (particle or lower or word[0].isupper()):
            break
        if kept and text[kept[-1][1] : a] not in (" ", ". "):
            break
        if kept and text[kept[-1][1]] == "." and kept[-1][1] - kept[-1][0] > 2:  # noqa: PLR2004 - "J. Doe"
            break
        if len(word) < 2 and at == 0 and not titled:  # noqa: PLR2004
            return []
        kept.append((a, b))
    while kept and text[slice(*kept[-1])].casefold() in PARTICLES:
        kept.pop()
    # Behind the first word another sentence may begin at once: "Hi Anna Where is my order".
    if len(kept) > 1 and not (titled or whole or _ENDS.match(text, kept[-1][1])):
        kept = kept[:1]
    return kept[: _MAX_ANSWER_WORDS + 2]


def _is_given(word: str) -> bool:
    """Whether it is a frequent first name, or begins with one: "Klaus-Dieter"."""
    return word.casefold().partition("-")[0] in GIVEN or (
        word[0].isupper() and word.casefold() in ALSO_WORDS & _FIRST_NAMES
    )


_FIRST_NAMES = frozenset(
    folded_words("""
    will mark grace sue pat rob jack chase frank drew max faith joy iris ivy lily ruby pearl heather guy dean earl
    miles wade dale glen penny christian carter hunter parker taylor gene cole daisy holly melody olive ray robin
    victor rosa luz amber crystal april june
    """)
)


def _span(text: str, start: int, end: int, rule: str, *, certain: bool) -> Span:
    return Span(start, end, "NAME", person_key(text[start:end]), rule=rule, certain=certain)
