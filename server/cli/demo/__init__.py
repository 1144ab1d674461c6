"""``tenantune demo``: the whole product once, through its own API, on the sample transcripts."""
