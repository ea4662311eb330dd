from phyla.cli import main

raise SystemExit(main())
