"""The tables' versions, each one step from the one before.

A step only adds. While a new version is rolled out, processes of the old one go on reading and
writing the same tables, so what a step adds is nullable or has a server default, it renames and
drops nothing, and it narrows no type. What the code no longer uses goes in a later release, when
none that uses it runs any more. A process that starts on tables newer than itself refuses to.
"""
