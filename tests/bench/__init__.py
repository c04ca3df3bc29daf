"""The benchmark: what does it cost, and what does it gain, to send every write of a database through one lane?"""
