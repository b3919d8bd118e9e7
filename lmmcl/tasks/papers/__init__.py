"""The skills and benchmarks of the papers, on their real data: one file a skill or a group of benchmarks.

Rows come from the hub through `lmmcl data prepare`; each file says how a row of the data set becomes a question, in the
words that lmms-eval asks it with.
"""
