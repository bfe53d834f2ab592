/*
 * In the driver's place, for tests/test_cudnn*.c: cuDNN looks for a driver
 * before it makes a plan, and of one that has no device it wants no more. Built
 * as a library of the driver's name.
 */
enum { NO_DEVICE = 100, NOT_SUPPORTED = 801 };

int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuDeviceGetCount(int *count);
int cuGetErrorString(int error, const char **text);
int cuGetErrorName(int error, const char **text);

int cuInit(unsigned flags)
{
    (void)flags;
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version)
{
    *version = 13000;
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = 0;
    return NO_DEVICE;
}

int cuGetErrorString(int error, const char **text)
{
    (void)error;
    *text = "no device";
    return 0;
}

int cuGetErrorName(int error, const char **text)
{
    return cuGetErrorString(error, text);
}

/* looked for by name; a plan for a described device calls none */
#define UNUSED(name)          \
    int name(void);           \
    int name(void)            \
    {                         \
        return NOT_SUPPORTED; \
    }
UNUSED(cuLaunchKernel)
UNUSED(cuLaunchKernelEx)
UNUSED(cuLaunchCooperativeKernel)
UNUSED(cuLinkCreate)
UNUSED(cuLinkCreate_v2)
UNUSED(cuLinkAddData)
UNUSED(cuLinkAddData_v2)
UNUSED(cuLinkAddFile_v2)
UNUSED(cuLinkComplete)
UNUSED(cuLinkDestroy)
UNUSED(cuDeviceGet)
UNUSED(cuDeviceGetAttribute)
UNUSED(cuDevicePrimaryCtxRetain)
UNUSED(cuDevicePrimaryCtxRelease)
UNUSED(cuDevicePrimaryCtxReset)
UNUSED(cuCtxPushCurrent)
UNUSED(cuCtxPopCurrent)
UNUSED(cuCtxGetLimit)
UNUSED(cuCtxGetCurrent)
UNUSED(cuCtxGetDevice)
UNUSED(cuStreamGetCtx)
UNUSED(cuStreamSynchronize)
UNUSED(cuOccupancyMaxPotentialClusterSize)
UNUSED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
UNUSED(cuLibraryLoadFromFile)
UNUSED(cuLibraryLoadData)
UNUSED(cuLibraryUnload)
UNUSED(cuLibraryGetKernel)
UNUSED(cuKernelSetAttribute)
UNUSED(cuKernelGetAttribute)
UNUSED(cuKernelGetFunction)
UNUSED(cuModuleLoadData)
UNUSED(cuModuleLoadDataEx)
UNUSED(cuModuleLoadFatBinary)
UNUSED(cuModuleUnload)
UNUSED(cuModuleGetFunction)
UNUSED(cuModuleGetGlobal_v2)
UNUSED(cuFuncSetAttribute)
UNUSED(cuFuncGetAttribute)
UNUSED(cuTensorMapEncodeTiled)
UNUSED(cuTensorMapEncodeIm2col)
UNUSED(cuMemcpyDtoH_v2)
