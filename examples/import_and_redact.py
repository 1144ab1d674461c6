# %% [markdown]
# # Import and redact
#
# A ticket system's export becomes conversations without personal data. Nothing is stored here: this is
# what `tenantune transcripts import` does before it writes rows. The export is the sample of an
# invented water utility, 260 conversations in a CSV file.

# %%
from importlib import resources

from connectors.import_pipeline import run_import
from connectors.redaction.redactor import Redactor
from connectors.report import render_table

export = resources.files("connectors.samples") / "northgate.csv"
print(export.read_text(encoding="utf-8")[:600])

# %% [markdown]
# ## Read it
#
# The format is found out from the first bytes, and so are the columns, who is who, and the order of
# the dates. The report says what was assumed, what was rejected, and why.

# %%
with export.open("rb") as stream:
    plain = run_import(stream, "northgate.csv")
    as_sent = list(plain)
print(render_table(plain.report))

# %% [markdown]
# ## Redact it
#
# Addresses, numbers, and names that the export, a greeting or a signature gives away become placeholders. The same address
# gets the same placeholder within a conversation, so the text still makes sense. A tenant's own numbers
# are patterns, and what is public, as the emergency line, is kept. "GB" says whose phone numbers to expect.

# %%
redactor = Redactor({"customer": r"NW-[0-9]{4}-[0-9]{6}"}, "GB", allowlist=["0800 555 0142"])
with export.open("rb") as stream:
    run = run_import(stream, "northgate.csv", redactor=redactor)
    redacted = list(run)
print(run.report.redacted)

# %% [markdown]
# What changed, side by side, in the first conversations where something did:

# %%
changed = [
    (before.text, after.text)
    for one, other in zip(as_sent, redacted, strict=True)
    for before, after in zip(one.turns, other.turns, strict=True)
    if before.text != after.text
]
for before, after in changed[:4]:
    print("-", before)
    print("+", after)
    print()

# %% [markdown]
# ## What stays
#
# A name in the middle of a sentence is not found by rule. Look before you train:
# the placeholders below are what was found, everything else was kept as it is.

# %%
print(redactor.redact_text("Ask for Joan Miller at 4 Mill Lane, or write to joan@example.com."))
