"""With no healthy server a request waits for one, however long."""
# convicted by: active_health/all_dead

import time

from sound import Balancer, main


class Broken(Balancer):
    def no_server(self, client):
        while not self.healthy_from(0):
            time.sleep(0.05)
        return super().no_server(client)


if __name__ == "__main__":
    main(Broken)
