"""Recordings without a transcript, long ones too, become slices and a transcript of them.

`activity` finds speech, `slicing` decides where to cut, `cutting` does it for a recording,
`recogniser` and `command` hear what is said, `pipeline` runs it all on Ray Data, `journal` keeps
what is done, `ledger` tells where each second went, `checking` compares a transcript that is there.
"""
