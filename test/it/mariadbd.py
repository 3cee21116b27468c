"""MariaDB, for tests of the user database."""
import getpass
import random
import shutil
import signal
import subprocess
import urllib.parse

from process import Process, free_port, poll


class Mariadb:
    """A server of its own, in a copy of an empty data directory; databases are made on demand, for
    a user that has a password."""
    PASSWORD = "p'ss w:rd/1@%"

    def __init__(self, directory, empty, *args):
        self.dir, self.args, self.port, self.socket = (
            directory, args, free_port(), str(directory / "mariadb.sock"),
        )
        shutil.copytree(empty, directory / "data")
        self.start()
        password = self.PASSWORD.replace("'", "''")
        self.sql(
            f"CREATE USER wxl@'127.0.0.1' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO "
            "wxl@'127.0.0.1';"
            f"CREATE USER wxl@localhost IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO "
            "wxl@localhost"
        )

    @staticmethod
    def install(directory):
        """What mariadb-install-db makes, once for many servers."""
        for _ in range(3):  # on a busy machine it gives up waiting for its own server now and then
            shutil.rmtree(directory, ignore_errors=True)
            r = subprocess.run(
                [
                    "mariadb-install-db", "--no-defaults", f"--datadir={directory}",
                    f"--user={getpass.getuser()}", "--skip-test-db",
                    "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M",
                ],
                capture_output=True, text=True,
            )
            if r.returncode == 0:
                return directory
        raise AssertionError(r.stdout + r.stderr)

    def start(self):
        # flush 2: a commit is in the kernel's hands, so kill -9 loses none; it does not wait for a
        # disk that is busy
        self.process = Process(
            [
                "mariadbd", "--no-defaults", f"--datadir={self.dir}/data",
                f"--socket={self.socket}", "--bind-address=127.0.0.1", f"--port={self.port}",
                f"--user={getpass.getuser()}", "--innodb-buffer-pool-size=16M",
                "--innodb-log-file-size=8M", "--performance-schema=OFF", "--skip-name-resolve",
                f"--pid-file={self.dir}/pid", "--innodb-flush-log-at-trx-commit=2",
                *(self.args or ["--skip-ssl"]),
            ],
            self.dir / "mariadb.log",
        )
        poll(lambda: self.cli("SELECT 1").returncode == 0, seconds=60, what="mariadbd")

    def client(self, *args):
        """The command; newer clients insist on TLS unless told otherwise."""
        return ["mariadb", "--no-defaults", "--skip-ssl", "-uroot", "-S", self.socket, *args]

    def cli(self, sql):
        return subprocess.run(self.client("-BNe", sql), capture_output=True, text=True)

    def sql(self, sql):
        r = self.cli(sql)
        assert r.returncode == 0, r.stderr
        return r.stdout

    def database(self):
        """The URL of a new and empty one."""
        name = f"t{random.randrange(10**12)}"
        self.sql(f"CREATE DATABASE {name}")
        return (
            f"mysql://wxl:{urllib.parse.quote(self.PASSWORD, safe='')}@127.0.0.1:{self.port}/{name}"
        )

    def kill(self):
        self.process.proc.kill()
        self.process.proc.wait()

    def signal(self, sig):
        self.process.signal(sig)

    def stop(self):
        if self.process.proc.poll() is None:
            self.process.signal(signal.SIGCONT)
            self.kill()
