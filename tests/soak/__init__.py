"""Everything that looks for faults with fresh seeds, for as long as asked: `make soak MINUTES=60`.

    parts      what there is (simulator, crash states, fuzzing, chaos), with its share of the time
    job        one process: one part for some seconds, and what came of it
    schedule   jobs on all cores until the time is up
    tally      what is counted; report: the summary for people, as text, Markdown or JSON
"""
