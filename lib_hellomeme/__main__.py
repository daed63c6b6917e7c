import sys

from lib_hellomeme.standalone.command_line import main

if __name__ == "__main__":
    sys.exit(main())
