"""The command line: parse and print only. Each command's module is imported when it is called.

Add a command: one row in COMMANDS, `NAME: (module:attribute, section, one line of help)`.
The attribute is a `click.Command` made with `cls=machine.cli.grammar.Command`, which tolerates
Go's spellings (`-debug`, `--force=true`); it takes the `Session` with `click.pass_obj`.
"""

from typing import Final

_MACHINES: Final = "Machines"
_CONTAINERS: Final = "Containers (on the machine of the environment, or -m NAME)"

COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "active": ("machine.cli.ls:active", _MACHINES, "Print which machine is active"),
    "config": ("machine.cli.env:config", _MACHINES, "Print the connection config for machine"),
    "console": (
        "machine.cli.abilities:console",
        _MACHINES,
        "Show what a machine wrote on its console",
    ),
    "create": ("machine.cli.create:create", _MACHINES, "Create a machine"),
    "drivers": ("machine.cli.about:drivers", _MACHINES, "List the drivers that are installed"),
    "env": (
        "machine.cli.env:env",
        _MACHINES,
        "Display the commands to set up the environment for the Docker client",
    ),
    "gc": (
        "machine.cli.gc:gc",
        _MACHINES,
        "Find and remove what no machine of yours accounts for at a provider",
    ),
    "help": ("machine.cli.about:help_", _MACHINES, "Show the help of a command"),
    "inspect": ("machine.cli.inspect:inspect", _MACHINES, "Inspect information about a machine"),
    "ip": ("machine.cli.status:ip", _MACHINES, "Get the IP address of a machine"),
    "kill": ("machine.cli.power:kill", _MACHINES, "Kill a machine"),
    "ls": ("machine.cli.ls:ls", _MACHINES, "List machines"),
    "mount": ("machine.cli.mount:mount", _MACHINES, "Mount a folder of a machine with SSHFS"),
    "provision": ("machine.cli.provision:provision", _MACHINES, "Re-provision existing machines"),
    "regenerate-certs": (
        "machine.cli.provision:regenerate_certs",
        _MACHINES,
        "Regenerate TLS Certificates for a machine",
    ),
    "resize": ("machine.cli.abilities:resize", _MACHINES, "Change the size of a machine"),
    "restart": ("machine.cli.power:restart", _MACHINES, "Restart a machine"),
    "resume": ("machine.cli.power:resume", _MACHINES, "Resume a suspended machine"),
    "rm": ("machine.cli.rm:rm", _MACHINES, "Remove a machine"),
    "ssh": ("machine.cli.ssh:ssh", _MACHINES, "Log into or run a command on a machine with SSH."),
    "scp": ("machine.cli.ssh:scp", _MACHINES, "Copy files between machines"),
    "snapshot": (
        "machine.cli.abilities:snapshot",
        _MACHINES,
        "Keep and restore states of a machine: create, ls, restore, rm",
    ),
    "start": ("machine.cli.power:start", _MACHINES, "Start a machine"),
    "status": ("machine.cli.status:status", _MACHINES, "Get the status of a machine"),
    "stop": ("machine.cli.power:stop", _MACHINES, "Stop a machine"),
    "suspend": ("machine.cli.power:suspend", _MACHINES, "Suspend a machine"),
    "upgrade": (
        "machine.cli.provision:upgrade",
        _MACHINES,
        "Upgrade a machine to this program's version of the agent",
    ),
    "url": ("machine.cli.status:url", _MACHINES, "Get the URL of a machine"),
    "version": (
        "machine.cli.about:version",
        _MACHINES,
        "Show the Docker Machine version or a machine docker version",
    ),
    "run": ("machine.cli.run:run", _CONTAINERS, "Run a command in a new container"),
    "ps": ("machine.cli.containers:ps", _CONTAINERS, "List containers"),
    "images": ("machine.cli.images:images", _CONTAINERS, "List images"),
    "build": ("machine.cli.build:build", _CONTAINERS, "Build an image from a Dockerfile"),
    "pull": ("machine.cli.images:pull", _CONTAINERS, "Download an image from a registry"),
    "push": ("machine.cli.archives:push", _CONTAINERS, "Upload an image to a registry"),
    "save": ("machine.cli.archives:save", _CONTAINERS, "Save images to a tar archive"),
    "load": ("machine.cli.archives:load", _CONTAINERS, "Load images from a tar archive"),
    "login": ("machine.cli.archives:login", _CONTAINERS, "Authenticate to a registry"),
    "rmi": ("machine.cli.images:rmi", _CONTAINERS, "Remove images"),
    "logs": ("machine.cli.containers:logs", _CONTAINERS, "Fetch the logs of a container"),
    "exec": ("machine.cli.containers:exec_", _CONTAINERS, "Run a command in a running container"),
    "cp": ("machine.cli.copying:cp", _CONTAINERS, "Copy files to or from a container"),
    "stats": ("machine.cli.usage:stats", _CONTAINERS, "Display what containers use, live"),
    "attach": ("machine.cli.containers:attach", _CONTAINERS, "Attach to a running container"),
    "events": ("machine.cli.containers:events", _CONTAINERS, "Get real time events"),
    "docker": (
        "machine.cli.docker:docker",
        _CONTAINERS,
        "The docker commands, for those without the docker binary",
    ),
}
