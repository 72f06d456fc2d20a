"""Model files opened on the runtime that their ending names: one file a runtime, imported when it is needed."""
