"""The page that a node shows to browsers: the whole cluster, read-only. Imported only where it is wanted.

    view        what is shown: the nodes' answers, what is not well, this node's last ten minutes
    document    a View as HTML: health, the disk, and the rest; PURE, as all that it is made of:
    nodes         tables of the nodes: state, copies and rates; heal and scrub
    clients       who uses the disk
    plots         ten minutes as lines, in SVG
    markup        elements and tables; what is not made by them is escaped
    style         the style sheet: light, dark, and for phones
    looking     asks the other nodes, while somebody looks
    serving     the page at a node's HTTP server

Data flows from `looking` through a View to text.
"""
