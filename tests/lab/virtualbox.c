/* VBoxHeadless without the kernel driver.
 *
 * VirtualBox 7 can run a virtual machine by emulation alone (execution engine "recompiler"), but the
 * installed VBoxHeadless, a setuid "hardened" stub, insists on /dev/vboxdrv. This is that stub with
 * other flags: the runtime is told that there is no driver and that none is wanted. The flags are
 * SUPR3INIT_F_*: unrestricted, driverless, driverless with the interpreting engine allowed.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#define RTR3INIT_FLAGS_SUPLIB (1u << 16)
#define SUPR3INIT_DRIVERLESS ((1u | 4u | 8u) << 18)

static void *opened(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    return library;
}

int main(int argc, char **argv, char **envp)
{
    void *runtime = opened("/usr/lib/virtualbox/VBoxRT.so");
    if (runtime == NULL)
        return 1;
    int (*init)(int, char ***, uint32_t) = (int (*)(int, char ***, uint32_t))dlsym(runtime, "RTR3InitExe");
    int status = init(argc, &argv, RTR3INIT_FLAGS_SUPLIB | SUPR3INIT_DRIVERLESS);
    if (status < 0) {
        fprintf(stderr, "RTR3InitExe: %d\n", status);
        return 1;
    }
    void *headless = opened("/usr/lib/virtualbox/VBoxHeadless.so");
    if (headless == NULL)
        return 1;
    int (*trusted)(int, char **, char **) = (int (*)(int, char **, char **))dlsym(headless, "TrustedMain");
    return trusted(argc, argv, envp);
}
